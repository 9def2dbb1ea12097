"""What slime's training actor does with a batch of rollouts, on a CPU: score, assign advantages, train.

It runs slime's own functions where slime is installed, and those of stand_in/ where it is not.
"""

import sys
from argparse import Namespace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import tiny_megatron
import torch
import yaml
from megatron.core.pipeline_parallel import get_forward_backward_func

HERE = Path(__file__).resolve().parent
if find_spec("slime") is None:
    sys.path.insert(0, str(HERE / "stand_in"))
if find_spec("slime.utils.accelerator") is not None:  # where slime looks for a GPU
    from slime.utils import accelerator

    accelerator.device = accelerator.current_device = lambda *_: torch.device("cpu")

from slime.backends.megatron_utils.data import get_batch, get_data_iterator  # noqa: E402
from slime.backends.megatron_utils.loss import (  # noqa: E402
    compute_advantages_and_returns,
    get_log_probs_and_entropy,
    loss_function,
)
from slime.backends.megatron_utils.model import forward_only  # noqa: E402
from slime.utils.misc import load_function  # noqa: E402

# slime's and Megatron's defaults of what slime's functions and the adapter read.
DEFAULTS = {
    "advantage_estimator": "grpo",
    "allgather_cp": False,
    "calculate_per_token_loss": False,
    "compute_advantages_and_returns": True,
    "context_parallel_size": 1,
    "custom_advantage_function_path": None,
    "custom_megatron_before_log_prob_hook_path": None,
    "custom_megatron_init_path": None,
    "custom_pg_loss_reducer_function_path": None,
    "custom_reward_post_process_path": None,
    "custom_tis_function_path": None,
    "data_pad_size_multiplier": 4,
    "dynamic_sampling_filter_path": None,
    "entropy_coef": 0.0,
    "eps_clip": 0.2,
    "eps_clip_c": None,
    "eps_clip_high": 0.2,
    "get_mismatch_metrics": False,
    "hf_checkpoint": None,
    "keep_old_actor": False,
    "kl_coef": 0.0,
    "kl_loss_coef": 0.0,
    "kl_loss_type": "k1",
    "log_probs_chunk_size": -1,
    "loss_type": "policy_loss",
    "micro_batch_size": 1,
    "n_samples_per_prompt": 4,
    "normalize_advantages": False,
    "num_rollout": 10,
    "opd_kl_coef": 1.0,
    "padded_vocab_size": None,
    "recompute_loss_function": False,
    "ref_load": "reference",
    "release_train": False,
    "rewards_normalization": True,
    "rollout_temperature": 1.0,
    "rollout_top_p": 1.0,
    "save": None,
    "save_debug_train_data": None,
    "seq_length": 1024,
    "start_rollout_id": 0,
    "tis_clip": 2.0,
    "use_critic": False,
    "use_dynamic_batch_size": True,
    "use_kl_loss": False,
    "use_opd": False,
    "use_opsm": False,
    "use_rollout_entropy": False,
    "use_rollout_logprobs": False,
    "use_rollout_routing_replay": False,
    "use_routing_replay": False,
    "use_tis": False,
}
TRAINED = (
    *("tokens", "total_lengths", "response_lengths", "loss_masks", "multimodal_train_inputs"),
    *("log_probs", "ref_log_probs", "values", "advantages", "returns", "rollout_log_probs"),
    *("teacher_log_probs", "rollout_mask_sums"),
)


def make_args(file=None, **given):
    """slime's arguments: defaults, then the flags that are given, then the file of --custom-config-path."""
    args = Namespace(**DEFAULTS | given)
    if file is not None:
        for name, value in yaml.safe_load(Path(file).read_text()).items():
            setattr(args, name, value)
    return args


class Wrapper(torch.nn.Module):
    """Stands around the model as Megatron's DDP does, which needs GPUs."""

    def __init__(self, module):
        super().__init__()
        self.module, self.config = module, module.config

    def forward(self, *positional, **named):
        return self.module(*positional, **named)


class Actor:
    """A policy, and a reference whose weights take its place for a pass."""

    def __init__(self, args, hf, reference, **parallel):
        """`hf` and `reference` are Hugging Face models with the weights to begin with."""
        if args.custom_megatron_init_path:
            load_function(args.custom_megatron_init_path)(args)
        self.args, self.model = args, Wrapper(tiny_megatron.make_model(hf.config, **parallel))
        self.weights = {}
        for name, each in (("ref", reference), ("actor", hf)):
            tiny_megatron.load_weights(self.model.module, each)
            self._back_up(name)

    def _back_up(self, name):
        self.weights[name] = {
            key: value.clone() for key, value in self.model.state_dict().items() if value is not None
        }

    def _switch(self, name):
        self.model.load_state_dict(self.weights[name], strict=False)

    def score(self, rollout_data):
        """The passes of reference and policy, as far as slime makes them, and the advantages."""
        iterators, counts = get_data_iterator(rollout_data), rollout_data["num_microbatches"]

        def run(prefix):
            found = forward_only(
                get_log_probs_and_entropy, self.args, [self.model], iterators, counts, store_prefix=prefix
            )
            rollout_data.update(found)

        if self.args.kl_coef != 0 or self.args.use_kl_loss:
            self._switch("ref")
            run("ref_")
        self._switch("actor")
        if len(counts) > 1 or self.args.kl_coef != 0 or self.args.keep_old_actor:
            run("")
        compute_advantages_and_returns(self.args, rollout_data)

    def train(self, rollout_data, optimizer):
        """One step of the optimizer for each of the batch's steps; for one rank."""
        (iterator,) = get_data_iterator(rollout_data)
        for count, size in zip(
            rollout_data["num_microbatches"], rollout_data["global_batch_sizes"], strict=True
        ):
            optimizer.zero_grad()
            get_forward_backward_func()(
                forward_step_func=partial(self._forward_step, count, size),
                data_iterator=[iterator],
                model=[self.model],
                num_microbatches=count,
                seq_length=self.args.seq_length,
                micro_batch_size=self.args.micro_batch_size,
                forward_only=False,
            )
            optimizer.step()
        self._back_up("actor")

    def _forward_step(self, count, size, iterator, model):
        batch = get_batch(iterator, TRAINED, self.args.data_pad_size_multiplier, self.args.allgather_cp)
        logits = model(
            input_ids=batch["tokens"],
            position_ids=None,
            attention_mask=None,
            labels=None,
            packed_seq_params=batch["packed_seq_params"],
            loss_mask=batch["full_loss_masks"],
        )
        return logits, partial(loss_function, self.args, batch, count, size)


def make_rollout_data(samples, micro_batches, steps=1, rank=0, ranks=1):
    """What slime's training actor gets of these samples, which are dicts, in its part of data parallelism.

    Args:
        samples: with "tokens", "mask" of the response and "reward"; and "index", which counts on within
            prompts, and "rollout_id", if they are others than the place.
        micro_batches: how many samples are packed into one row.
        steps: steps of the optimizer.
    """
    own = list(range(rank, len(samples), ranks))
    chosen = [samples[place] for place in own]
    packed = [
        list(range(start, min(start + micro_batches, len(own))))
        for start in range(0, len(own), micro_batches)
    ]
    sums = {}
    for place, sample in enumerate(samples):
        session = sample.get("rollout_id", place)
        sums[session] = sums.get(session, 0) + sum(sample["mask"])
    sessions = [sample.get("rollout_id", place) for place, sample in zip(own, chosen, strict=True)]
    return {
        "partition": own,
        "tokens": [torch.tensor(sample["tokens"]) for sample in chosen],
        "loss_masks": [torch.tensor(sample["mask"], dtype=torch.int) for sample in chosen],
        "total_lengths": [len(sample["tokens"]) for sample in chosen],
        "response_lengths": [len(sample["mask"]) for sample in chosen],
        "rewards": [sample["reward"] for sample in chosen],
        "raw_reward": [sample["reward"] for sample in samples],
        "sample_indices": [sample.get("index", place) for place, sample in zip(own, chosen, strict=True)],
        "rollout_ids": sessions,
        "rollout_mask_sums": torch.tensor([float(sums[session]) for session in sessions]),
        "num_microbatches": [len(packed) // steps] * steps,
        "micro_batch_indices": packed,
        "global_batch_sizes": [len(sums) // steps] * steps,
        "rollout_log_probs": [torch.full((len(sample["mask"]),), -1.0) for sample in chosen],
    }
