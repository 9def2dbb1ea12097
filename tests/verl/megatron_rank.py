"""One rank of verl's actor worker on Megatron that scores a fixed batch: python megatron_rank.py MODEL OUT OVERRIDES

Started by test_megatron.py with RANK and WORLD_SIZE set. Each line of OVERRIDES is a configuration.
"""

import os
import sys

import megatron_models
import megatron_on_cpu  # noqa: F401  (registers the engine)
import score_rank
import torch
import train_on_cpu
from hydra import compose, initialize_config_module
from megatron.core import parallel_state
from transformers import AutoModelForCausalLM

from credit.adapters.verl import sources
from credit.adapters.verl.worker import CreditWorker

OF_FSDP = ("ray", "fsdp", "strategy")  # what the example's configuration has of no use here
PRECISION = "+actor_rollout_ref.actor.megatron.override_transformer_config.bf16="
NAMES = ["log_probs", "entropy", *("credit_" + name for name in score_rank.FIELDS.split())]


def make_worker(path, overrides):
    given = [f"{k}={v}" for k, v in train_on_cpu.ON_CPU.items() if not any(name in k for name in OF_FSDP)]
    given += ["model_engine=megatron", f"actor_rollout_ref.model.path={path}", *score_rank.BATCHING]
    given += ["actor_rollout_ref.actor.megatron.forward_only=True"]  # an optimizer would need CUDA
    if PRECISION + "True" not in overrides:  # verl's engine knows 16 bits alone
        given.append(PRECISION + "False")
    with initialize_config_module("verl.trainer.config", version_base=None):
        models = compose("ppo_trainer", overrides=[*given, *overrides]).actor_rollout_ref
    worker = CreditWorker(models, "actor_rollout" if sources.uses_lora(models) else "actor_rollout_ref")
    worker.init_model()
    return worker


def count_forwards(engine):
    """A list that gets an entry with each forward of the engine's model."""
    calls = []
    engine.module[0].register_forward_hook(lambda *_: calls.append(1))
    return calls


def score(worker):
    """What the worker returns for this rank's rows, as lists; None if another rank returns it."""
    first, step = parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()
    output = worker.compute_log_prob(score_rank.batch(score_rank.rows()[first::step]))
    assert worker.actor.loss_fn is worker.loss_fn
    if output is None:
        return None
    return {name: [row.tolist() for row in output[name].unbind()] for name in NAMES}


def give_weights(engine, base, tuned):
    """The policy gets the tuned model's weights, and the base's without its adapter, if it has one."""
    megatron_models.load_weights(engine.module[0], tuned)
    if engine.peft_cls is not None:
        engine.peft_cls.base, engine.peft_cls.tuned = base, tuned


def measure(path, overrides):
    """The data-parallel rank, results where policy and reference are equal and where not, and both's forwards."""
    worker = make_worker(path, overrides)
    base, tuned = (AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32) for _ in range(2))
    score_rank.perturb(tuned.parameters())
    engines = [each.engine for each in (worker.actor, worker.ref) if each is not None]
    calls, results = [count_forwards(engine) for engine in engines], []
    for policy in (base, tuned):
        give_weights(engines[0], base, policy)
        results.append(score(worker))
    rank = parallel_state.get_data_parallel_rank()
    parallel_state.destroy_model_parallel()
    return rank, *results, [len(each) for each in calls]


def main(path, out, *configurations):
    torch.set_num_threads(1)
    torch.save([measure(path, line.split()) for line in configurations], f"{out}/{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
