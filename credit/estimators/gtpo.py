"""Rewards shaped by entropy among the responses at each position."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit import groups
from credit.backends.arrays import group_max, group_sum, namespace
from credit.estimators.base import Estimator
from credit.estimators.entropy_shares import share_in_group
from credit.types import Array, Rollouts
from credit.validation import require_single_reward


class GTPO(Estimator):
    """Group Token Policy Optimization: rewards shaped by entropy, among the responses at each position.

        O+ (r_i > 0):  R_{i,t} = alpha_1 r_i + alpha_2 d_t H_{i,t} / sum_{k in O+} H_{k,t}
        O- (else):     R_{i,t} = -alpha_1 - alpha_2 h_t H_{i,t}^{-1} / sum_{k in O-} H_{k,t}^{-1}
        A_{i,t} = (R_{i,t} - mean) / (std + eps), over the tokens of O+ and of O- of the group apart

    d_t and h_t count the responses of O+ and O- that have a t-th token. Among successes, uncertain tokens
    gain the most; among failures, certain tokens lose the most. The advantages average 0 within O+ and
    within O-, so the reward itself acts through the clip alone. Source: arXiv 2508.04349, eq. 3-6.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rollouts = credit.Rollouts(
        ...     rewards=np.array([1.0, 1.0]),
        ...     groups=np.array([0, 0]),
        ...     mask=np.ones((2, 1), bool),
        ...     normalized_entropy=np.array([[0.6], [0.2]]),
        ... )
        >>> credit.GTPO()(rollouts).advantages.round(3).tolist()
        [[1.0], [-1.0]]
    """

    redistributes: ClassVar[bool] = False
    row_local: ClassVar[bool] = False
    shift_invariant: ClassVar[bool] = False
    name: Literal["gtpo"] = "gtpo"
    alpha_1: Annotated[float, Field(ge=0)] = 1.0
    """Factor on the reward."""
    alpha_2: Annotated[float, Field(ge=0)] = 0.1
    """Factor on the share of the entropy."""
    eps: Annotated[float, Field(gt=0)] = 1e-6
    """Added to the standard deviation; also the least normalized entropy, so that its inverse is finite."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("normalized_entropy",)

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        rewards, mask = require_single_reward(self.name, rollouts), rollouts.mask
        xp = namespace(rewards)
        positive = mask & (rewards > 0.0)[:, None]
        entropy = xp.where(mask, xp.clip(rollouts.normalized_entropy, min=self.eps), 1.0)
        # Standardizing removes any constant of O+ and of O-. Removing it first, the group's mean reward from
        # O+ and alpha_1 from O-, keeps the digits of the shares, which float32 would lose beside it.
        centered = groups.center(rewards, rollouts.groups, rollouts.valid)[:, None]
        gain = self.alpha_1 * centered + self.alpha_2 * _share_by_position(entropy, positive, rollouts)
        loss = -self.alpha_2 * _share_by_position(1.0 / entropy, mask & ~positive, rollouts)
        shaped = xp.where(mask, xp.where(positive, gain, loss), 0.0)
        advantages = xp.where(
            positive,
            _standardize_tokens(shaped, positive, rollouts.groups, self.eps),
            _standardize_tokens(shaped, mask & ~positive, rollouts.groups, self.eps),
        )
        return advantages, mask


def _share_by_position(values: Array, chosen: Array, rollouts: Rollouts) -> Array:
    """`share_in_group` [N, T] among the tokens at the same position in the responses of a group."""
    xp = namespace(values)
    rows, width = values.shape
    position = xp.cumulative_sum(xp.astype(rollouts.mask, rollouts.groups.dtype), axis=-1) - 1
    ids = xp.where(rollouts.mask, rollouts.groups[:, None] * width + position, 0)
    flat = (xp.reshape(each, (-1,)) for each in (values, chosen, ids))
    return xp.reshape(share_in_group(*flat), (rows, width))


def _standardize_tokens(values: Array, chosen: Array, ids: Array, eps: float) -> Array:
    """(x - mean) / (std + eps) over the group's chosen tokens, with the population's std; 0 elsewhere."""
    xp = namespace(values)

    def total(each: Array) -> Array:
        return group_sum(xp.sum(xp.where(chosen, each, 0.0), axis=-1), ids)[:, None]

    count = xp.clip(total(xp.ones_like(values)), min=1.0)
    centered = values
    for _ in range(2):
        centered = xp.where(chosen, centered - total(centered) / count, 0.0)
    # Dividing by the group's largest value first keeps the squares of large rewards within float32.
    largest = group_max(xp.max(xp.abs(centered), axis=-1), ids)[:, None]
    unit = xp.where(largest > 0.0, largest, 1.0)
    return centered / (unit * xp.sqrt(total((centered / unit) ** 2) / count) + eps)
