"""A user's own estimator and reward, as they would lie beside a training script."""

from typing import Literal

import credit


class Witness(credit.DGPO):
    """DGPO that also says how its weights average and how many rows it saw."""

    name: Literal["witness"] = "witness"

    def token_metrics(self, rollouts, weights):
        found = super().token_metrics(rollouts, weights)
        found["rows_seen"] = rollouts.rewards.new_tensor(len(rollouts.rewards))
        return found | {"weights_mean": credit.tokens.mean(weights, rollouts.mask)}


def low_digits(data_source, solution_str, ground_truth, **_):
    """The share of low digits in halves: it varies within most groups of a random model, not in all."""
    return round(2 * sum(c in "01234" for c in solution_str) / max(len(solution_str), 1)) / 2
