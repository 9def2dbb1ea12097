"""What a trainer has already, for both loops: the flags, and a task whose rewards can be verified.

The task is to count up to nine: to the prompt "6" the right response is "7 8 9" and the end token.
"""

import argparse
import json
import math
import sys
from typing import Any, NamedTuple, NoReturn

import numpy as np
from pydantic import ValidationError

import credit

END, VOCABULARY = 10, 11  # the ten digits, and the token that ends a response
LENGTH = 10  # of the longest response, in tokens
# The fields of Rollouts that the loops fill in; what else an estimator reads, yours has to hand over.
FIELDS = {"log_probs", "reference_log_probs", "normalized_entropy", "deviation"}


def draw_prompts(random: np.random.Generator, count: int) -> np.ndarray:
    """Prompts [count, 1] of one digit each."""
    return random.integers(0, 9, (count, 1))


def compute_rewards(prompts: np.ndarray, responses: np.ndarray) -> np.ndarray:
    """The share [N], in 0..1, of the right response to prompts [N, 1] that responses [N, T] start with."""
    rewards = []
    for (digit,), response in zip(prompts.tolist(), responses.tolist(), strict=True):
        right = [*range(digit + 1, 10), END]
        matches = [given == wanted for given, wanted in zip(response, right, strict=False)]
        rewards.append([*matches, False].index(False) / len(right))
    return np.array(rewards, np.float32)


class Step(NamedTuple):
    """What one step of a loop was given and made."""

    rollouts: credit.Rollouts
    result: credit.Credit
    loss_metrics: dict[str, Any]
    """Those of the last update on the batch."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def parse_flags(description: str | None, arguments: list[str] | None = None) -> argparse.Namespace:
    """The flags, with `estimator` and `compare` as estimators."""
    parser = Parser(
        description=description, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--estimator", default="dgpo", help="one of: " + ", ".join(credit.names()))
    parser.add_argument("--settings", help="settings of the estimator, as JSON (dgpo: tau 0.05)")
    parser.add_argument("--compare", help="another estimator, whose advantages are compared in the log")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--prompts", type=int, default=16, help="prompts per step")
    parser.add_argument("--responses", type=int, default=8, help="responses per prompt: the group")
    parser.add_argument("--updates", type=int, default=2, help="optimizer steps on each batch")
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args(arguments)
    for name in ("steps", "prompts", "responses", "updates"):
        if getattr(flags, name) < 1:
            parser.error(f"--{name} is {getattr(flags, name)}; expected at least 1")
    if not 0 < flags.learning_rate < math.inf:
        parser.error(f"--learning-rate is {flags.learning_rate}; expected a finite number above 0")
    settings = flags.settings or ('{"tau": 0.05}' if flags.estimator == "dgpo" else "{}")
    try:
        flags.estimator = make_estimator(flags.estimator, settings)
        flags.compare = flags.compare and make_estimator(flags.compare, "{}")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        parser.error(
            ": ".join(["--settings", *map(str, first["loc"]), first["msg"].removeprefix("Value error, ")])
        )
    except ValueError as error:
        parser.error(str(error))
    return flags


def make_estimator(name: str, settings: str) -> credit.Estimator:
    """The estimator, if the loops have all that it reads."""
    try:
        given = json.loads(settings)
    except json.JSONDecodeError as error:
        raise ValueError(f"--settings is {settings!r}, which is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise ValueError(f"--settings is {settings}; expected an object, such as '{{\"tau\": 0.1}}'")
    estimator = credit.parse({**given, "name": name})
    lacking = [field for field in estimator.needs if field not in FIELDS]
    if lacking:
        raise ValueError(f"{name} reads {', '.join(lacking)}, which this example does not have")
    loss = estimator.loss
    if loss.aggregation == "fixed_horizon" and loss.horizon is None:
        wanted = json.dumps({**given, "loss": {"horizon": LENGTH}})
        raise ValueError(f"the loss of {name} needs the longest response: --settings '{wanted}'")
    return estimator


def show(number: int, step: Step, other: credit.Credit | None) -> None:
    """Prints what a log must have to tell whether an estimator does anything."""
    rollouts, result, loss_metrics = step
    values = {
        "reward": rollouts.rewards.mean(),
        "deviation": credit.tokens.mean(rollouts.deviation, rollouts.mask),
        "effective token fraction": result.metrics["effective_token_fraction"],
        "largest weight": result.metrics["weight_max"],
        "largest ratio": loss_metrics["ratio_max"],
    }
    if other is not None:
        values["largest difference in A"] = abs(result.advantages - other.advantages).max()
    print(f"step {number:3d}", *(f"{name} {float(value):.4f}" for name, value in values.items()), sep="   ")
    sys.stdout.flush()
