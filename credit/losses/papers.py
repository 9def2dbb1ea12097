"""The losses of papers by name, for PolicyLoss.from_paper."""

from collections.abc import Mapping
from typing import Any

GSPO = {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4}

PAPERS: Mapping[str, Mapping[str, Any]] = {
    "gspo": GSPO,
    "gspo_token": GSPO,  # the same formula: it carries an advantage of each token
    "sapo": {"objective": "sapo"},
    "vespo": {"objective": "vespo", "aggregation": "token_mean"},
    "gmpo": {"objective": "gmpo", "clip_low": 0.4, "clip_high": 0.4},
    # The thresholds, fractions and clips below are those of the authors' scripts.
    "dppo_tv": {"objective": "dppo_tv", "clip_low": 0.15, "clip_high": 0.15},
    "dppo_kl": {"objective": "dppo_kl", "clip_low": 0.05, "clip_high": 0.05},
    "clip_cov": {"objective": "clip_cov", "clip_low": 1.0, "clip_high": 1.0, "aggregation": "token_mean"},
    "kl_cov": {"objective": "kl_cov", "covariance_fraction": 2e-3, "aggregation": "token_mean"},
    "icepop": {"rollout_rule": "mask", "rollout_floor": 0.5, "rollout_cap": 5.0},
}


def find_paper(name: str) -> Mapping[str, Any]:
    """The settings of a paper's loss; a ValueError that lists the names for any other."""
    if name not in PAPERS:
        raise ValueError(f"unknown loss {name!r}; known: {', '.join(sorted(PAPERS))}")
    return PAPERS[name]
