"""Prints what works with each of verl's engines and trainers: python -m credit.adapters.verl.coverage

Every cell is found by the checks that a trainer makes at its start, on verl's own configuration.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from hydra import compose, initialize_config_module
from omegaconf import open_dict

from credit.adapters.verl import checks, legacy, sources

FUSED = "actor_rollout_ref.model.use_fused_kernels=True"
OF_MEGATRON = "actor_rollout_ref.actor.megatron"
ENGINES = (
    ("`fsdp`, `fsdp2`", ()),
    ("the same with fused kernels", (FUSED,)),
    ("`veomni`", ("model_engine=veomni",)),
    ("the same with fused kernels", ("model_engine=veomni", FUSED)),
    ("`fsdp_turbo`", tuple(f"actor_rollout_ref.{role}.strategy=fsdp_turbo" for role in ("actor", "ref"))),
    (
        "`megatron`, tensor and context parallel",
        (
            "model_engine=megatron",
            f"{OF_MEGATRON}.tensor_model_parallel_size=2",
            f"{OF_MEGATRON}.context_parallel_size=2",
        ),
    ),
    (
        "the same with several pipeline stages",
        ("model_engine=megatron", f"{OF_MEGATRON}.pipeline_model_parallel_size=2"),
    ),
    ("`megatron` with fused kernels", ("model_engine=megatron", FUSED)),
    ("`torchtitan` and all others", ("model_engine=torchtitan",)),
    ("any, with `bypass_mode`", ("algorithm.rollout_correction.bypass_mode=True",)),
    ("any, with `hybrid_engine=False`", ("actor_rollout_ref.hybrid_engine=False",)),
)
TRAINERS = {
    "verl's V1 modes": (
        checks.check_config,
        sources.find_v1_mode("separate_async", computes_statistics=False),
    ),
    "`credit_sync`, `credit_colocate_async`": (
        checks.check_config,
        sources.find_v1_mode("sync", computes_statistics=True),
    ),
    "`credit_separate_async`": (
        checks.check_config,
        sources.find_v1_mode("separate_async", computes_statistics=True),
    ),
    "before V1": (legacy.check_config, legacy.find_mode("RayPPOTrainer")),
}
KINDS: dict[str, tuple[str, dict[str, str]]] = {  # an estimator of each, and its settings
    "rewards": ("credit_grpo", {}),
    "entropy": ("credit_top_entropy", {}),
    "sampled": ("credit_dgpo", {"divergence": "binary"}),
    "exact": ("credit_dgpo", {}),
}
USUAL = ("actor_rollout_ref.rollout.n=8", "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=1")


def write_markdown() -> str:
    """The table: a row per engine, a column per trainer."""
    rows = [f"| engine | {' | '.join(TRAINERS)} |", "|---" * (len(TRAINERS) + 1) + "|"]
    for name, options in ENGINES:
        config = _compose(*USUAL, *options)
        cells = [", ".join(_list_kinds(config, *trainer)) for trainer in TRAINERS.values()]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _compose(*overrides: str) -> Any:
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=list(overrides))


def _list_kinds(config: Any, check: Callable[..., Any], mode: sources.Mode) -> Iterator[str]:
    """The kinds of estimators that the trainer's check lets pass."""
    for kind, (estimator, settings) in KINDS.items():
        with open_dict(config):
            config.algorithm.update(adv_estimator=estimator, credit=settings)
        with suppress(ValueError):
            check(config, mode)
            yield kind


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
