"""Reward functions as ms-swift calls them: --external_plugins reward.py --reward_funcs exact_match

The data have a column `solution` with the answer; ms-swift hands each column over by its name.
"""

import sys
from pathlib import Path
from typing import Any

from swift.rewards import ORM, orms

sys.path.append(str(Path(__file__).resolve().parents[1] / "trl"))  # ms-swift imports this file by its path

import arithmetic  # noqa: E402


class ExactMatch(ORM):
    """1 for a completion that is the answer, else 0 (the small model's tasks)."""

    def __call__(self, completions: list[str], solution: list[str], **_: Any) -> list[float]:
        return arithmetic.exact_match(completions, solution)


class RightCharacters(ORM):
    """The share of the answer's characters that stand at their place; a model without warm-up earns some."""

    def __call__(self, completions: list[str], solution: list[str], **_: Any) -> list[float]:
        return [
            sum(a == b for a, b in zip(text, answer, strict=False)) / len(answer)
            for text, answer in zip(completions, solution, strict=True)
        ]


class LastNumberMatch(ORM):
    """1 for a completion whose last number is the answer's last number, else 0 (word problems)."""

    def __call__(self, completions: list[str], solution: list[str], **_: Any) -> list[float]:
        return arithmetic.last_number_match(completions, solution)


orms["exact_match"] = ExactMatch
orms["right_characters"] = RightCharacters
orms["last_number_match"] = LastNumberMatch
