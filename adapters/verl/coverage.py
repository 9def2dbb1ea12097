"""Prints what works with each of verl's engines and trainers: python -m credit.adapters.verl.coverage

Every cell is found by the checks that a trainer makes at its start, on verl's own configuration.
"""

import argparse
import logging
import sys
from typing import Any

from hydra import compose, initialize_config_module

from credit.adapters.verl import checks, legacy, sources

ENGINES = {
    "`fsdp`, `fsdp2`": (),
    "the same with fused kernels": ("actor_rollout_ref.model.use_fused_kernels=True",),
    "`veomni`": ("model_engine=veomni",),
    "the same with fused kernels ": (
        "model_engine=veomni",
        "actor_rollout_ref.model.use_fused_kernels=True",
    ),
    "`megatron`, tensor and context parallel": (
        "model_engine=megatron",
        "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=2",
        "actor_rollout_ref.actor.megatron.context_parallel_size=2",
    ),
    "the same with several pipeline stages": (
        "model_engine=megatron",
        "actor_rollout_ref.actor.megatron.pipeline_model_parallel_size=2",
    ),
    "`megatron` with fused kernels": (
        "model_engine=megatron",
        "actor_rollout_ref.model.use_fused_kernels=True",
    ),
    "`torchtitan`": ("model_engine=torchtitan",),
    "any, with `bypass_mode`": ("algorithm.rollout_correction.bypass_mode=True",),
    "any, with `hybrid_engine=False`": ("actor_rollout_ref.hybrid_engine=False",),
}
MODES = {
    "verl's V1 modes": sources.find_v1_mode("separate_async", scores_tokens=False),
    "`credit_sync`, `credit_colocate_async`": sources.find_v1_mode("sync", scores_tokens=True),
    "`credit_separate_async`": sources.find_v1_mode("separate_async", scores_tokens=True),
    "before V1": legacy.find_mode("RayPPOTrainer"),
}
KINDS = {
    "rewards": ("algorithm.adv_estimator=credit_grpo",),
    "entropy": ("algorithm.adv_estimator=credit_top_entropy",),
    "sampled": ("algorithm.adv_estimator=credit_dgpo", "+algorithm.credit.divergence=binary"),
    "exact": ("algorithm.adv_estimator=credit_dgpo",),
}
USUAL = ("actor_rollout_ref.rollout.n=8", "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=1")


def write_markdown() -> str:
    """The table: a row per engine, a column per trainer."""
    rows = [f"| engine | {' | '.join(MODES)} |", "|---" * (len(MODES) + 1) + "|"]
    for name, options in ENGINES.items():
        configs = {kind: _compose(*USUAL, *options, *estimator) for kind, estimator in KINDS.items()}
        cells = [
            ", ".join(kind for kind, config in configs.items() if _works(config, mode))
            for mode in MODES.values()
        ]
        rows.append(f"| {name.strip()} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _compose(*overrides: str) -> Any:
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=list(overrides))


def _works(config: Any, mode: sources.Mode) -> bool:
    try:
        choice = checks.check_config(config, mode)
        if mode == MODES["before V1"]:
            legacy.refuse_what_only_v1_gives(choice, mode)
    except ValueError:
        return False
    return True


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; there are no flags but --help."""
    parser = argparse.ArgumentParser(
        "python -m credit.adapters.verl.coverage", description=__doc__, allow_abbrev=False
    )
    parser.parse_args(arguments)
    logging.getLogger("credit").setLevel(logging.ERROR)
    print(write_markdown(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
