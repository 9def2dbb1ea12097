"""Per framework, the constants and rules that reproduce its group baselines."""

from typing import Any

# They reproduce the framework's own baselines in groups whose rewards differ. A group of one response, and
# one whose rewards are all equal, get exactly 0 here, and in some frameworks a rounding error.
PRESETS: dict[str, dict[str, Any]] = {
    "trl": {"correction": 1, "eps": 1e-4},
    "verl": {"correction": 1, "eps": 1e-6, "scale_by": "nonzero_rewards"},
    "openrlhf": {"correction": 1, "eps": 1e-9, "whiten_correction": 0},
}
