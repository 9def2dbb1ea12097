"""Rewards as OpenRLHF calls them: --reward.remote_url <this file>; `labels` hold the answers.

REWARD=exact_match wants the answer and nothing else (the small model's tasks), any other value a response
whose last number is the answer's last number (word problems).
"""

import os
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "trl"))  # OpenRLHF imports this file by its path

import arithmetic  # noqa: E402

REWARD = getattr(arithmetic, os.environ.get("REWARD", "last_number_match"))


def reward_func(queries: list[str], prompts: list[str], labels: list[str]) -> dict[str, Any]:
    """1 for a right response, else 0; OpenRLHF asks for one at a time."""
    responses = [query[len(prompt) :] for query, prompt in zip(queries, prompts, strict=True)]
    (reward,) = REWARD([response.split("<eos>")[0] for response in responses], labels)
    return {"rewards": reward, "scores": reward, "extra_logs": {"accuracy": reward}}
