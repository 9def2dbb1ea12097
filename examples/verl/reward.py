"""Rewards as verl calls them: reward.custom_reward_function.{path,name}"""

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "trl"))  # verl imports this file by its path

import arithmetic  # noqa: E402


def exact_match(data_source: str, solution_str: str, ground_truth: str, **_: Any) -> float:
    """1 for a response that is the answer, else 0 (the small model's tasks)."""
    return arithmetic.exact_match([solution_str], [ground_truth])[0]


def last_number_match(data_source: str, solution_str: str, ground_truth: str, **_: Any) -> float:
    """1 for a response whose last number is the answer's last number, else 0 (word problems)."""
    return arithmetic.last_number_match([solution_str], [ground_truth])[0]
