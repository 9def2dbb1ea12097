"""A user's own estimator and reward, as they would lie beside a training script."""

from typing import Literal

import given_rows
import torch

import credit


class Witness(credit.DGPO):
    """DGPO that also says how its weights average, how many rows it saw, and whether arrays fit their rows.

    The scores of a token are made of its id and its place by the agent loop, those of a response by the
    reward function of its reward, and the turn's score is that of its first token.
    """

    name: Literal["witness"] = "witness"

    @property
    def needs(self):
        return (*given_rows.NEEDS, "extra.own_scores", "extra.doubled", "extra.token_ids")

    def __call__(self, rollouts):
        result = super().__call__(rollouts)
        result.metrics.update(given_rows.try_estimators(rollouts))
        mask, extra = rollouts.mask.bool(), rollouts.extra
        scores = extra["token_ids"] + torch.arange(mask.shape[1]) / 16
        for name, error in {
            "of_tokens": (extra["own_scores"] - scores)[mask],
            "of_responses": extra["doubled"] - 2 * rollouts.rewards,
            "of_turns": rollouts.token_rewards.sum(dim=1) - extra["own_scores"][:, 0],
        }.items():
            result.metrics[f"error_{name}"] = error.abs().max()
        result.metrics["rows_seen"] = rollouts.rewards.new_tensor(len(rollouts.rewards))
        result.metrics["weights_mean"] = credit.tokens.mean(result.weights, rollouts.mask != 0)
        return result


def low_digits(data_source, solution_str, ground_truth, **_):
    """The share of low digits in halves: it varies within most groups of a random model, not in all.

    Twice the share is a number beside it.
    """
    share = round(2 * sum(c in "01234" for c in solution_str) / max(len(solution_str), 1)) / 2
    return {"score": share, "doubled": 2 * share}
