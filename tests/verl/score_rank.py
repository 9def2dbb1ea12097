"""One rank of verl's actor worker that scores a fixed batch: python score_rank.py MODEL OUT OVERRIDES

Started by test_scoring.py with RANK and WORLD_SIZE set. Each line of OVERRIDES is a configuration.
"""

import os
import sys
from contextlib import contextmanager

import fsdp1_on_cpu  # noqa: F401
import torch
import train_on_cpu
import ulysses_attention  # noqa: F401  (registers an attention, and with verl the CPU platform)
from hydra import compose, initialize_config_module
from tensordict import TensorDict
from torch.distributed.fsdp import FullyShardedDataParallel
from verl.utils import tensordict_utils as tu

from credit.adapters.verl import statistics
from credit.adapters.verl.worker import MEMORY, REQUEST, CreditWorker

TEMPERATURE = 1.3
OVER_LOGITS = "over_logits"  # among the overrides: from there on statistics are taken from logits
BATCHING = [
    "actor_rollout_ref.actor.use_dynamic_bsz=True",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=32",
    "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True",
    "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=32",
]
FIELDS = (
    "log_probs reference_log_probs normalized_entropy deviation extra.sum_squares extra.kl extra.reverse_kl"
)


def rows(vocabulary=12, count=6):
    """Prompts and responses of different lengths; the ids are ordinary tokens."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 12, (count, 2), generator=generator).tolist()
    return [[torch.randint(3, vocabulary, (n,), generator=generator) for n in pair] for pair in lengths]


def perturb(parameters):
    """Moves every parameter away from where it was, the same on any number of ranks."""
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.sin(50 * parameter + 1) * 0.1)


def batch(chosen, **asked):
    """Rows as verl's trainer sends them."""
    fields = {"prompts": [p for p, _ in chosen], "responses": [r for _, r in chosen]}
    fields["input_ids"] = [torch.cat(pair) for pair in chosen]
    fields["position_ids"] = [torch.arange(len(ids)) for ids in fields["input_ids"]]
    fields["response_mask"] = fields["loss_mask"] = [torch.ones(len(r), dtype=torch.long) for _, r in chosen]
    nested = {name: torch.nested.as_nested_tensor(x, layout=torch.jagged) for name, x in fields.items()}
    data = TensorDict(nested, batch_size=[len(chosen)])
    return assign_options(data, [len(ids) for ids in fields["input_ids"]], **asked)


def assign_options(data, lengths, memory_mb=256, names=FIELDS):
    """The batch with what verl's trainer and credit's say about it."""
    tu.assign_non_tensor(data, calculate_entropy=True, compute_loss=False, temperature=TEMPERATURE)
    tu.assign_non_tensor(data, global_token_num=lengths)
    tu.assign_non_tensor(data, **{REQUEST: names, MEMORY: memory_mb})
    return data


def gather(module, trained):
    """The trained weights whole, by FSDP 1 or 2."""
    if not isinstance(module, FullyShardedDataParallel):
        return {name: parameter.full_tensor() for name, parameter in trained.items()}
    with FullyShardedDataParallel.summon_full_params(module):
        return {name: parameter.clone() for name, parameter in module.named_parameters()}


@contextmanager
def counted(worker):
    """Counts the forwards of policy and reference, and the positions whose logits the reference makes."""
    counts = {"micro_batches": 0, "policy": 0, "reference": 0, "reference_positions": 0}
    actor = worker.actor.engine
    prepare = actor.prepare_model_outputs

    def prepare_model_outputs(**given):
        counts["micro_batches"] += 1
        return prepare(**given)

    def count(name, positions=None):
        def hook(module, arguments, output):
            counts[name] += 1 if positions is None else arguments[0].shape[1]

        return hook

    actor.prepare_model_outputs = prepare_model_outputs
    hooks = [actor.module.register_forward_hook(count("policy"))]
    if worker.ref is not None:
        reference = worker.ref.engine.module
        hooks.append(reference.register_forward_hook(count("reference")))
        hooks.append(reference.lm_head.register_forward_hook(count("reference_positions", positions=True)))
    try:
        yield counts
    finally:
        del actor.prepare_model_outputs
        for hook in hooks:
            hook.remove()


def score(model, overrides, rank, ranks, source):
    """The policy's trained weights, and what the worker returns for this rank's rows, as lists.

    The source has the rows and makes batches of them. Before the policy leaves its reference it must deviate
    by exactly 0.
    """
    if OVER_LOGITS in overrides:
        overrides.remove(OVER_LOGITS)
        statistics._find_obstacle = lambda *_: "as if a head were not plain"
    given = [f"{name}={value}" for name, value in train_on_cpu.ON_CPU.items() if "ray" not in name]
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose(
            "ppo_trainer",
            overrides=[*given, *BATCHING, f"actor_rollout_ref.model.path={model}", *overrides],
        )
    lora = config.actor_rollout_ref.model.lora_rank > 0
    torch.manual_seed(0)  # LoRA draws its weights
    worker = CreditWorker(config.actor_rollout_ref, "actor_rollout" if lora else "actor_rollout_ref")
    worker.init_model()
    trained = {n: p for n, p in worker.actor.engine.module.named_parameters() if p.requires_grad}
    share = config.actor_rollout_ref.actor.ulysses_sequence_parallel_size
    chosen = source.rows()[rank // share :: ranks // share]
    equal = worker.compute_log_prob(source.batch(chosen))
    for name in ("credit_deviation", "credit_extra.kl") if equal is not None else ():
        assert not equal[name].values().any(), f"equal models: {equal[name].values()}"
    with counted(worker) as alone:
        worker.compute_log_prob(source.batch(chosen, names="normalized_entropy"))
    assert alone["policy"] == alone["micro_batches"]
    assert alone["reference"] == 0
    if worker.ref is not None:
        with counted(worker) as plain:  # what verl itself runs for GRPO with a KL term
            worker.compute_log_prob(source.batch(chosen, names=""))
            worker.compute_ref_log_prob(source.batch(chosen, names=""))
        assert plain["policy"] == plain["reference"] == plain["micro_batches"]
    perturb(trained.values())
    with counted(worker) as counts:
        output = worker.compute_log_prob(source.batch(chosen, memory_mb=1e-3))  # some ten tokens at a time
    assert worker.actor.loss_fn is worker.loss_fn
    names = ["log_probs", "entropy", *("credit_" + name for name in FIELDS.split())]
    if output is None:  # another rank of the same sequences returns them
        output = dict.fromkeys(names, torch.empty(0, 0))
    result = {name: [row.tolist() for row in output[name].unbind()] for name in names}
    return gather(worker.actor.engine.module, trained), result, counts


def main(source, model, out, *configurations):
    torch.set_num_threads(1)
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    results = [score(model, line.split(), rank, ranks, source) for line in configurations]
    torch.save(results, f"{out}/{rank}.pt")


if __name__ == "__main__":
    main(sys.modules[__name__], *sys.argv[1:])
