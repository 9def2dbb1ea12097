"""The constants that frameworks differ in, for group baselines that shall equal theirs."""

from typing import Any

# Where a group's rewards differ these reproduce the frameworks' own GRPO; a singleton group and one
# whose rewards are all equal get exactly 0 here, whatever the framework leaves there.
PRESETS: dict[str, dict[str, Any]] = {
    "trl": {"correction": 1, "eps": 1e-4},
    "verl": {"correction": 1, "eps": 1e-6},
    "openrlhf": {"correction": 1, "eps": 1e-9, "whiten_correction": 0},
}
