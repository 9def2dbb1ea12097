"""Per framework, the constants and rules that reproduce its group baselines."""

from typing import Any

# They reproduce the framework's own baselines in groups of several responses whose rewards differ. Elsewhere
# an advantage here is exactly 0 before any whitening, and the frameworks' are not:
# - Equal rewards: theirs is the rounding of a mean, divided by eps. On a CPU, eight rewards of 2.1 get 0.002
#   in TRL and ms-swift, 0.2 in verl's and SkyRL's grpo and in slime, and in OpenRLHF's group_norm 238, which
#   its clip range cuts to 10.
# - A group of one: TRL, ms-swift and slime give 0, too. verl takes the mean for 0 and the deviation for 1, so
#   that the response keeps its reward (grpo, rloo, opo, gpg; reinforce_plus_plus_baseline and gdpo before
#   they whiten), and its pass@k raises an error. SkyRL's grpo and maxrl keep it, too, and its rloo gives 0.
#   OpenRLHF's rloo and group_norm give NaN.
GROUP_CONSTANTS = ("correction", "eps", "whiten_correction")
"""Those of GRPO's advantage and of whitening; `Estimator.ignores_group_constants` says who reads none."""
PRESETS: dict[str, dict[str, Any]] = {
    "trl": {"correction": 1, "eps": 1e-4},
    "ms-swift": {"correction": 1, "eps": 1e-4},
    "slime": {"correction": 1, "eps": 1e-6},
    "verl": {"correction": 1, "eps": 1e-6, "scale_by": "nonzero_rewards", "over": "tokens"},
    "openrlhf": {"correction": 1, "eps": 1e-9, "whiten_correction": 0},
    "skyrl": {"correction": 1, "eps": 1e-6},
}
