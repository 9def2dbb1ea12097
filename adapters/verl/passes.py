"""What verl's own passes compute of each token on every engine, and the statistics that follow from it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from omegaconf import OmegaConf
from verl.utils.config import omega_conf_to_dataclass

import credit

Tensor = torch.Tensor

FIELDS = ("old_log_probs", "ref_log_prob", "entropy")
"""verl's names of what its passes compute."""
ENTROPY = ("normalized_entropy", "extra.entropy")
STATISTICS = ("log_probs", "reference_log_probs", *ENTROPY)
"""The statistics that follow from it; of the deviation, a lower bound."""
SHOWN = ("log_probs", "reference_log_probs", "normalized_entropy")
"""Those of them that are recorded for credit.lens whatever the estimator reads."""


def derive_statistics(
    arrays: Mapping[str, Tensor], names: Sequence[str], vocabulary_size: int
) -> dict[str, Tensor]:
    """The statistics [N, T] of those names, as far as arrays named as in `FIELDS` give them.

    The deviation is that of the sampled token against all others, a lower bound of the exact one.
    """
    found = dict[str, Tensor]()
    policy, reference = arrays.get("old_log_probs"), arrays.get("ref_log_prob")
    if policy is not None:
        found["log_probs"] = policy
    if reference is not None:
        found["reference_log_probs"] = reference
    if policy is not None and reference is not None:
        found["deviation"] = credit.binary_deviation(policy, reference)
    if "entropy" in arrays:
        found["extra.entropy"] = arrays["entropy"]
        found["normalized_entropy"] = (found["extra.entropy"] / math.log(vocabulary_size)).clamp(0.0, 1.0)
    return {name: found[name] for name in names if name in found}


def read_vocabulary_size(config: Any) -> int:
    """V of the model in the config."""
    model = omega_conf_to_dataclass(config.actor_rollout_ref.model)
    return int(model.hf_config.get_text_config().vocab_size)


def are_skipped(config: Any) -> bool:
    """Whether verl takes the rollout's log-probs for the old ones, and so runs no pass that computes them."""
    return bool(OmegaConf.select(config, "algorithm.rollout_correction.bypass_mode", default=False))
