"""A user's own estimator and reward, as they would lie beside a training script."""

from typing import Literal

import credit


class Witness(credit.DGPO):
    """DGPO that also says how its weights average and how many rows it saw."""

    name: Literal["witness"] = "witness"

    def __call__(self, rollouts):
        result = super().__call__(rollouts)
        result.metrics["rows_seen"] = rollouts.rewards.new_tensor(len(rollouts.rewards))
        result.metrics["weights_mean"] = credit.tokens.mean(result.weights, rollouts.mask != 0)
        return result


def low_digits(data_source, solution_str, ground_truth, **_):
    """The share of low digits in halves: it varies within most groups of a random model, not in all."""
    return round(2 * sum(c in "01234" for c in solution_str) / max(len(solution_str), 1)) / 2
