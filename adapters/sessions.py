"""Agent sessions that put several outputs into a batch, of which the last one carries the reward."""

from collections.abc import Sequence

import torch

import credit
from credit.adapters import traits
from credit.fields import map_arrays


def assign_credit(
    estimator: credit.Estimator, rollouts: credit.Rollouts, last: Sequence[int]
) -> credit.Credit:
    """The estimator's credit, with each session counted once in its group, as in the frameworks' own grpo.

    The last output of a session enters the group's statistics with its reward. The session's other
    outputs get the same A_i, and each distributes it over its own tokens; of a mix, each part's A_i. The
    metrics are those of the last outputs.

    Args:
        last: for each row [N], the row with the last output of its session; of a session with one output,
            that row itself.

    Raises:
        ValueError: several outputs, and an estimator or a part that is not a product of A_i and weights.
    """
    finals = sorted(set(last))
    if len(finals) == len(last):
        return estimator(rollouts)
    parts = traits.list_parts(estimator)
    whole = [part.estimator.name for part in parts if not part.estimator.is_product]
    if whole:
        raise ValueError(
            f"{whole[0]} computes its advantages as a whole, so they cannot be carried over to the "
            "other outputs of an agent session; let the agent loop, or the scheduler, return one output per "
            "session"
        )
    of_finals = select_rows(rollouts, torch.tensor(finals))
    position = {row: place for place, row in enumerate(finals)}
    places, of_all = [position[row] for row in last], rollouts._replace(rewards=rollouts.rewards[last])
    total = weights = torch.zeros(rollouts.mask.shape, device=rollouts.mask.device)
    for part in parts:
        by_session, _ = part.estimator.factors(of_finals)
        advantages, own = part.estimator.factors(of_all, by_session[places])
        # A_i may be NaN, and NaN times 0 is.
        total = total + torch.where(rollouts.mask.bool(), part.factor * advantages[:, None] * own, 0.0)
        weights = weights + part.share * own
    return credit.Credit(total, weights, estimator(of_finals).metrics)


def select_rows(rollouts: credit.Rollouts, chosen: torch.Tensor) -> credit.Rollouts:
    """The chosen rows [M] of rollouts, with group ids renumbered from 0."""
    found = map_arrays(lambda array: array if array.ndim == 0 else array[chosen.to(array.device)], rollouts)
    return found._replace(groups=torch.unique(found.groups, return_inverse=True)[1])
