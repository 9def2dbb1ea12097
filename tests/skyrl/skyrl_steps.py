"""The steps of SkyRL's training loop, one by one: its trainer in this process with one worker of its own.

What Ray would carry from one to the other is handed over as it is; test_ray.py has them in processes of their own.
"""

import random
from types import SimpleNamespace

import torch.distributed as dist
from forwards import counted_rows
from skyrl.backends.skyrl_train.distributed.dispatch import WorkerOutput
from skyrl.backends.skyrl_train.training_batch import pad_training_input_batch
from skyrl.backends.skyrl_train.utils.ppo_utils import AdvantageEstimatorRegistry
from skyrl.backends.skyrl_train.workers.fsdp.fsdp_worker import FSDPPolicyWorkerBase
from skyrl.backends.skyrl_train.workers.worker_dispatch import WorkerDispatch
from skyrl.train.trainer import RayPPOTrainer
from skyrl_models import list_uids, make_output
from transformers import AutoTokenizer

from credit.adapters.skyrl import answers, registry
from credit.adapters.skyrl.statistics import Request
from credit.adapters.skyrl.trainer import CreditTrainer
from credit.adapters.skyrl.worker import CreditPolicyWorkerBase


class Dispatch(WorkerDispatch):
    """SkyRL's, to a worker in this process; `ways` workers share the rows as SkyRL would share them."""

    def __init__(self, cfg, worker, ways=1):
        self.worker, self.ways, self.batches = worker, ways, []
        self.colocate_all, self._actor_groups = False, {}

    def get_lcm_dp_size(self):
        return self.ways

    def forward(self, model, data, **named):
        assert len(data) % self.ways == 0
        parts = data.chunk(len(data) // self.ways)
        return self.join([self.worker.forward(part, **named) for part in parts])

    def stage_data(self, model, data, mini_batch_boundaries):
        staged = []
        for start, end in mini_batch_boundaries:
            batch = data[start:end]
            padding = -len(batch) % self.ways
            whole = pad_training_input_batch(batch, padding) if padding else batch
            staged.append(whole.chunk(len(whole) // self.ways))
        return staged

    def forward_from_staged(self, model, chunk_refs, **named):
        return self.join([self.worker.forward(part, **named) for part in chunk_refs])

    def forward_backward_from_staged(self, model, chunk_refs, **named):
        self.batches += chunk_refs
        return self.join([self.worker.forward_backward(part, **named) for part in chunk_refs])

    def optim_step(self, model, model_id=None):
        return self.worker.optim_step()

    def empty_cache(self, model=None):
        """There is no cache of a GPU."""

    @staticmethod
    def join(outputs):
        rows = [row for output in outputs for row in output.loss_fn_outputs]
        return WorkerOutput(loss_fn_outputs=rows, metrics=dict(outputs[0].metrics))


class Steps:
    """A run of SkyRL's whose steps a test takes.

    Attributes:
        trainer, worker: SkyRL's, extended by credit's unless the config names an estimator of SkyRL's own.
        found: per step the advantages in SkyRL's batch, the statistics, the policy's weights that they are of.
    """

    def __init__(self, cfg, choice, ways=1):
        self.cfg, self.choice, self.found = cfg, choice, []
        tokenizer = AutoTokenizer.from_pretrained(cfg.trainer.policy.model.path)
        given = {"cfg": cfg, "tracker": None, "tokenizer": tokenizer, "train_dataset": None}
        given |= {"inference_engine_client": None, "generator": None}
        if choice is None:
            self.trainer, kind = RayPPOTrainer(**given), FSDPPolicyWorkerBase
        else:
            name = cfg.trainer.algorithm.advantage_estimator
            if name not in AdvantageEstimatorRegistry.list_available():  # of an earlier run in the test
                registry.add(name, answers.answer)
            self.trainer, kind = CreditTrainer(choice, **given), CreditPolicyWorkerBase
        self.worker = start_worker(kind, cfg)
        if choice is not None and choice.statistics:
            path = cfg.trainer.ref.model.path if choice.compares else None
            self.worker.prepare_credit(Request(choice.scored, path, choice.statistics_memory_mb))
        self.trainer.dispatch = Dispatch(cfg, self.worker, ways)
        self.trainer.total_training_steps = 4

    def take(self, output=None, uids=None, train=True, **extra):
        """One step of SkyRL's loop, from what a generator returned to the optimizer."""
        trainer = self.trainer
        trainer.global_step += 1
        output = (make_output(seed=trainer.global_step) if output is None else output) | extra
        uids = list_uids(len(output["rewards"]) // 4) if uids is None else uids
        trainer.all_metrics, weights = {}, self.weights()
        output, uids = trainer.postprocess_generator_output(output, uids)
        data = trainer.convert_to_training_input(output, uids)
        with counted_rows() as forwards:
            data = trainer.fwd_logprobs_values_reward(data)
        kept = dict(getattr(trainer, "credit_statistics", {}))
        mask = data["loss_mask"].clone()
        data = trainer.compute_advantages_and_returns(data)
        step = SimpleNamespace(
            data=data,
            output=output,
            uids=list(uids),
            mask=mask > 0,
            rewards=data["rewards"].clone(),
            advantages=data["advantages"].clone(),
            returns=data["returns"].clone(),
            statistics=kept,
            weights=weights,
            forwards={name: rows / len(mask) for name, rows in forwards.items()},
            metrics=dict(trainer.all_metrics),
        )
        for key in ("uids", "is_last_step"):
            data.metadata.pop(key, None)
        data.pop("rewards")
        if train:
            step.status = trainer.train_critic_and_policy(data)
        self.found.append(step)
        return step

    def weights(self):
        """The policy's weights, whole."""
        model = self.worker.model.model
        return {
            name: (value.full_tensor() if hasattr(value, "full_tensor") else value).detach().clone()
            for name, value in model.state_dict().items()
        }


def start_worker(kind, cfg):
    """SkyRL's policy worker in this process, with its own model and optimizer."""
    if dist.is_initialized():
        dist.destroy_process_group()
    worker = kind(
        cfg=cfg.trainer,
        world_size=1,
        rank=0,
        local_rank=0,
        master_addr="127.0.0.1",
        master_port=random.randrange(20_000, 32_000),
        sequence_parallel_size=1,
    )
    worker.init_worker_process_group()
    worker.init_model(cfg.trainer.policy.model.path, 10)
    return worker
