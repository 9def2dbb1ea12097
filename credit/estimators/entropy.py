"""Estimators that read the policy's entropy and nothing of a reference."""

from math import log
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit import groups, tokens
from credit.backends.arrays import group_max, group_sum, namespace
from credit.estimators.base import Estimator
from credit.estimators.group_relative import GroupRelative, require_single_reward
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts


class EntropyShaped(GroupRelative):
    """GRPO's advantage with a bonus for uncertain tokens that never turns its sign.

        A_{i,t} = A_i + min(alpha H_{i,t}, |A_i| / kappa)

    H in nats, without gradient. Paper values: alpha 0.4, kappa 2. Loss: as GRPO's. Source: arXiv
    2506.14758.
    """

    redistributes: ClassVar[bool] = False
    scale_invariant: ClassVar[bool] = False
    name: Literal["entropy_shaped"] = "entropy_shaped"
    alpha: Annotated[float, Field(ge=0)] = 0.4
    kappa: Annotated[float, Field(gt=1)] = 2.0
    vocab_size: Annotated[int, Field(ge=2)] = 151_936
    """Turns normalised entropy into nats; the default is that of the paper's Qwen2.5."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("normalized_entropy",)

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        advantages = self.advantages(rollouts)[:, None]
        xp = namespace(advantages)
        bonus = self.alpha * log(self.vocab_size) * rollouts.normalized_entropy
        most = xp.abs(advantages) / self.kappa
        return advantages + xp.minimum(bonus, most + xp.zeros_like(bonus)), rollouts.mask


class TopEntropy(GroupRelative):
    """The 80/20 rule: GRPO's advantage on the batch's most uncertain tokens, 0 on the others.

        A_{i,t} = A_i w_{i,t}        w_{i,t} = 1[H_{i,t} >= quantile_batch(H, 1 - fraction)]

    The quantile runs over all tokens of the batch, so a response may keep none. Loss: as DAPO's, which
    the paper trains with. Source: arXiv 2506.01939.
    """

    redistributes: ClassVar[bool] = False
    row_local: ClassVar[bool] = False
    name: Literal["top_entropy"] = "top_entropy"
    loss: PolicyLoss = PolicyLoss(clip_high=0.28, aggregation="token_mean")
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.2

    @property
    def needs(self) -> tuple[str, ...]:
        return ("normalized_entropy",)

    def weights(self, rollouts: Rollouts, advantages: Array) -> Array:
        entropy, mask = rollouts.normalized_entropy, rollouts.mask
        xp = namespace(entropy)
        least = tokens.quantile(entropy, mask & xp.isfinite(entropy), 1.0 - self.fraction)
        chosen = xp.astype(mask & (entropy >= least), entropy.dtype)
        return xp.where(mask & xp.isnan(entropy), entropy, chosen)  # NaN stays visible


class GTPO(Estimator):
    """Group Token Policy Optimization: rewards shaped by entropy, among the responses at each position.

        O+ (r_i > 0):  R_{i,t} = alpha_1 r_i + alpha_2 d_t H_{i,t} / sum_{k in O+} H_{k,t}
        O- (else):     R_{i,t} = -alpha_1 - alpha_2 h_t H_{i,t}^{-1} / sum_{k in O-} H_{k,t}^{-1}
        A_{i,t} = (R_{i,t} - mean) / (std + eps), over the tokens of O+ and of O- of the group apart

    d_t and h_t count the responses of O+ and O- with a t-th token. Successes gain most where they were
    uncertain, failures lose most where they were sure. As the advantages average 0 within O+ and within
    O-, the reward itself acts through the clip only. Loss: as GRPO's. Source: arXiv 2508.04349, eq. 3-6.
    """

    redistributes: ClassVar[bool] = False
    row_local: ClassVar[bool] = False
    shift_invariant: ClassVar[bool] = False
    name: Literal["gtpo"] = "gtpo"
    alpha_1: Annotated[float, Field(ge=0)] = 1.0
    alpha_2: Annotated[float, Field(ge=0)] = 0.1
    eps: Annotated[float, Field(gt=0)] = 1e-6
    """Also the least normalised entropy, so that its inverse is finite."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("normalized_entropy",)

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        rewards, mask = require_single_reward(self, rollouts), rollouts.mask
        xp = namespace(rewards)
        positive = mask & (rewards > 0.0)[:, None]
        entropy = xp.where(mask, xp.clip(rollouts.normalized_entropy, min=self.eps), 1.0)
        # Less the group's mean reward, or alpha_1 for O-: constants that standardising would take out,
        # of a size at which float32 loses the shares.
        centred = groups.center(rewards, rollouts.groups, rollouts.valid)[:, None]
        gain = self.alpha_1 * centred + self.alpha_2 * _share_by_position(entropy, positive, rollouts)
        loss = -self.alpha_2 * _share_by_position(1.0 / entropy, mask & ~positive, rollouts)
        shaped = xp.where(mask, xp.where(positive, gain, loss), 0.0)
        advantages = xp.where(
            positive,
            _standardize_tokens(shaped, positive, rollouts.groups, self.eps),
            _standardize_tokens(shaped, mask & ~positive, rollouts.groups, self.eps),
        )
        return advantages, mask


class GRPOS(GroupRelative):
    """GRPO-S: whole responses weighed by their mean entropy, then standardised as in GRPO.

        O+ (r_i > 0):  R_i = beta_1 r_i + beta_2 n H_i / sum_{k in O+} H_k
        O- (else):     R_i = -beta_1 - beta_2 m H_i^{-1} / sum_{k in O-} H_k^{-1}
        A_i = (R_i - mean_group(R)) / (std_group(R) + eps)

    H_i is the mean entropy of response i's tokens, n and m count O+ and O- in its group. Among successes
    the uncertain gain most, among failures the sure lose most; a response without tokens gets no share.
    Loss: as GRPO's (the paper's ratio, the mean of a response's token ratios, is none of PolicyLoss's).
    Source: arXiv 2508.04349, eq. 8-9, as public reimplementations state them.
    """

    shift_invariant: ClassVar[bool] = False
    scale_invariant: ClassVar[bool] = False
    name: Literal["grpo_s"] = "grpo_s"
    beta_1: Annotated[float, Field(ge=0)] = 1.0
    beta_2: Annotated[float, Field(ge=0)] = 0.1
    least: Annotated[float, Field(gt=0)] = 1e-6
    """The least mean of the normalised entropy, so that its inverse is finite."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("normalized_entropy",)

    def advantages(self, rollouts: Rollouts) -> Array:
        rewards, ids, valid = require_single_reward(self, rollouts), rollouts.groups, rollouts.valid
        xp = namespace(rewards)
        lengths = tokens.length(rollouts.mask, rewards.dtype)[:, 0]
        sums = xp.sum(rollouts.normalized_entropy, axis=-1)
        entropy = xp.clip(sums / xp.clip(lengths, min=1.0), min=self.least)
        lost = valid & xp.isnan(entropy)  # as a row whose reward is lost, but loudly
        valid = valid & ~lost
        positive, written = rewards > 0.0, valid & (lengths > 0.0)
        base = self.beta_1 * xp.where(positive, rewards, -1.0)
        gain = _share(entropy, written & positive, ids)
        loss = _share(1.0 / entropy, written & ~positive, ids)
        # The base less its mean first: a constant that standardising takes out, of a size at which
        # float32 loses the shares.
        shaped = groups.center(base, ids, valid) + self.beta_2 * (gain - loss)
        result = groups.standardize(shaped, ids, valid, correction=self.correction, eps=self.eps)
        return xp.where(lost, float("nan"), result)


def _share_by_position(values: Array, chosen: Array, rollouts: Rollouts) -> Array:
    """`_share` among the group's chosen tokens at the same position [N, T]."""
    xp = namespace(values)
    rows, width = values.shape
    position = xp.cumulative_sum(xp.astype(rollouts.mask, rollouts.groups.dtype), axis=-1) - 1
    ids = xp.where(rollouts.mask, rollouts.groups[:, None] * width + position, 0)
    flat = (xp.reshape(each, (-1,)) for each in (values, chosen, ids))
    return xp.reshape(_share(*flat), (rows, width))


def _share(values: Array, chosen: Array, ids: Array) -> Array:
    """n v_i / sum_k v_k over the n chosen entries of the same id [N]; 0 for the others."""
    xp = namespace(values)
    sums = group_sum(xp.where(chosen, values, 0.0), ids)
    count = groups.size(chosen, ids, values.dtype)
    return xp.where(chosen, count * values / xp.where(sums == 0.0, 1.0, sums), 0.0)


def _standardize_tokens(values: Array, chosen: Array, ids: Array, eps: float) -> Array:
    """(x - mean) / (std + eps) over all chosen tokens of the group, std of the population; else 0."""
    xp = namespace(values)

    def total(each: Array) -> Array:
        return group_sum(xp.sum(xp.where(chosen, each, 0.0), axis=-1), ids)[:, None]

    count = xp.clip(total(xp.ones_like(values)), min=1.0)
    centred = values
    for _ in range(2):
        centred = xp.where(chosen, centred - total(centred) / count, 0.0)
    # As in `groups`: in units of the group's largest, so that the squares of large rewards fit.
    largest = group_max(xp.max(xp.abs(centred), axis=-1), ids)[:, None]
    unit = xp.where(largest > 0.0, largest, 1.0)
    return centred / (unit * xp.sqrt(total((centred / unit) ** 2) / count) + eps)
