"""Properties of an estimator that no field of it tells; some are found by trying it on three responses."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np

from credit.estimators.base import Estimator
from credit.estimators.mix import Mix
from credit.estimators.on_baseline import OnBaseline
from credit.fields import EXTRAS, replace_arrays
from credit.types import FIELDS, Rollouts

OWN = ("[N, T]", "[N]", "[N, K]")
"""The shapes with which an array of the user's own is tried, as floats."""
LARGE = 1000.0
"""A factor on the rewards that are tried, beside whose deviation an `eps` is nothing."""
Scale = Literal["none", "group", "batch"]
"""Advantages in the unit of the rewards, the same in any unit of a group's, or in any unit of the batch's."""


SCALES: Mapping[str | None, str] = {
    "group": "whose advantages are the same in any unit of a group's rewards",
    "batch": "whose advantages are the same in any unit of the batch's rewards",
    "none": "which does not scale the rewards",
    None: "which scales the rewards in a way of its own",
}
"""What an estimator of that scale does, in words."""


class Part(NamedTuple):
    """A term of a mix: `factor` on its advantages, and `share` on its weights."""

    factor: float
    share: float
    estimator: Estimator


def list_parts(estimator: Estimator) -> list[Part]:
    """The estimators of a mix and of the mixes within it; any other estimator is its own only part."""
    if not (isinstance(estimator, Mix) and type(estimator).assign is Mix.assign):
        return [Part(1.0, 1.0, estimator)]
    scale = sum(abs(c) for c, _ in estimator.parts) or 1.0
    return [
        Part(c * each.factor, abs(c) / scale * each.share, each.estimator)
        for c, part in estimator.parts
        for each in list_parts(part)
    ]


def list_below(estimator: Estimator) -> list[Estimator]:
    """The parts of a mix, or the base of an estimator that has one."""
    if isinstance(estimator, Mix):
        return [part for _, part in estimator.parts]
    base = estimator.parsed_base if isinstance(estimator, OnBaseline) else None
    return [] if base is None else [base]


def filters_groups(estimator: Estimator) -> bool:
    """Whether the estimator, its base, or a part of a mix, says which rows are worth training on."""
    if type(estimator).keep in (Mix.keep, OnBaseline.keep):
        return any(map(filters_groups, list_below(estimator)))
    return type(estimator).keep is not Estimator.keep


def find_filters(estimator: Estimator) -> list[int | str]:
    """Every `filter_by` that names a reward, or the total, in the estimator, its base and its parts."""
    own = getattr(estimator, "filter_by", "any")
    below = [each for part in list_below(estimator) for each in find_filters(part)]
    return below if own == "any" else [own, *below]


def weighs_rewards(estimator: Estimator) -> bool:
    """Whether the estimator, its base or one of its parts takes one reward per reward function, [N, K]."""
    return find_weigher(estimator) is not None or any(map(weighs_rewards, list_below(estimator)))


def find_weigher(estimator: Estimator) -> Estimator | None:
    """The estimator, or the one below it that is its base, that has the setting `reward_weights`."""
    if "reward_weights" in type(estimator).model_fields:
        return estimator
    base = estimator.parsed_base if isinstance(estimator, OnBaseline) else None
    return None if base is None else find_weigher(base)


def set_reward_weights(estimator: Estimator, weights: Sequence[float]) -> Estimator:
    """A copy whose `reward_weights`, or those of its base, are these."""
    if "reward_weights" not in type(estimator).model_fields and isinstance(estimator, OnBaseline):
        base = estimator.parsed_base
        if base is not None:
            return estimator.model_copy(update={"base": set_reward_weights(base, weights)})
    return estimator.model_copy(update={"reward_weights": tuple(weights)})


def learns_from_single_responses(estimator: Estimator) -> bool:
    """Whether responses that are alone in their groups get advantages other than 0."""
    advantages = _try_advantages(estimator, [0, 1, 2])
    return advantages is None or bool(advantages.any())


def differs_between_tokens(estimator: Estimator) -> bool:
    """Whether the tokens of a response get different advantages."""
    advantages = _try_advantages(estimator, [0, 0, 0])
    return advantages is None or not np.allclose(advantages, advantages[:, :1])


def find_reward_scale(estimator: Estimator) -> Scale | None:
    """How the advantages follow the unit of the rewards; None: in another way, or trying does not tell."""
    own = type(estimator).advantages not in (Mix.advantages, OnBaseline.advantages)
    below = [] if own else list_below(estimator)
    if below:
        scales = {find_reward_scale(each) for each in below}
        return scales.pop() if len(scales) == 1 else None
    second = np.array([[1.0]] * 3 + [[2.0]] * 3)  # of the two groups
    tried = [
        _try_advantages(estimator, [0, 0, 0, 1, 1, 1], LARGE * factors)
        for factors in (np.ones((6, 1)), np.full((6, 1), 2.0), second)
    ]
    if any(advantages is None for advantages in tried):
        return None
    plain, both_doubled, second_doubled = tried
    if _are_close(both_doubled, 2.0 * plain) and _are_close(second_doubled, second * plain):
        return "none"
    if _are_close(second_doubled, plain):
        return "group"
    return "batch" if _are_close(both_doubled, plain) else None


def normalizes_each_reward(estimator: Estimator) -> bool:
    """Whether the unit of one of several rewards has no effect on the advantages."""
    count = len(_reward_weights(estimator))
    factors = [[LARGE] * count, [2.0 * LARGE, *[LARGE] * (count - 1)]]
    plain, first_doubled = (_try_advantages(estimator, [0, 0, 0], np.array(each)) for each in factors)
    several = weighs_rewards(estimator) and plain is not None and first_doubled is not None
    return several and _are_close(first_doubled, plain)


def _are_close(values: Any, expected: Any) -> bool:
    return np.allclose(values, expected, rtol=0.0, atol=1e-3 * np.abs(expected).max())


def _reward_weights(estimator: Estimator) -> Sequence[float]:
    """A weight for each reward that the estimator is tried with: its own, or 1 for each of two."""
    weigher = find_weigher(estimator)
    return (1.0,) if weigher is None else getattr(weigher, "reward_weights", None) or (1.0, 1.0)


def _try_advantages(estimator: Estimator, groups: Sequence[int], factors: Any = 1.0) -> Any:
    """Advantages [N, 4], as a numpy array, of three or six responses whose rewards differ.

    None if the estimator raises an error: what it raises for an array of the user's own that has another
    shape is its own affair.

    Args:
        groups: [N].
        factors: on the rewards, [N, 1] for those of each response or [K] for each of several rewards.
    """
    rules, names = FIELDS | EXTRAS, estimator.required_fields
    rollouts, values = _make_rollouts(groups, len(_reward_weights(estimator)), factors)
    known = {name: values[rules[name].shape, rules[name].kind] for name in names if name in rules}
    for k, name in enumerate(name for name in known if rules[name].most == 0):  # log-probs
        known[name] = known[name].log() * (1 + k)  # of two models they differ
    if "token_rewards" in known:
        known["token_rewards"] = known["token_rewards"] * rollouts.rewards.new_tensor(factors)
    own = [name for name in names if name not in rules]
    for shapes in product(OWN, repeat=len(own)):
        arrays = {name: values[shape, "float"] for name, shape in zip(own, shapes, strict=True)}
        try:
            return estimator(replace_arrays(rollouts, known | arrays)).advantages.numpy()
        except Exception:
            continue
    return None


def _make_rollouts(groups: Sequence[int], rewards: int, factors: Any) -> tuple[Rollouts, dict[Any, Any]]:
    """Rollouts of responses with four tokens, and optional arrays for them by shape and kind.

    They are torch tensors, as in the frameworks, since an estimator of the user's may expect them.
    """
    import torch

    def repeat(rows: list[list[Any]]) -> Any:
        return torch.tensor(rows).repeat(len(groups) // 3, 1)

    first = torch.tensor([0.0, 1.0, 3.0, 2.0, 6.0, 5.0])[: len(groups)]
    several = torch.stack([first.roll(k) for k in range(rewards)], dim=1) * first.new_tensor(factors)
    mask = torch.ones((len(groups), 4), dtype=torch.bool)
    values = {
        ("[N, T]", "float"): repeat([[0.01, 0.3, 0.05, 0.6], [0.2, 0.02, 0.9, 0.1], [0.4, 0.7, 0.03, 0.25]]),
        ("[N, T]", "integer"): repeat([[0, 0, 1, 1]] * 3),
        ("[N, T]", "bool"): repeat([[True, False, False, True]] * 3),
        ("[N]", "float"): torch.zeros(len(groups)),
        ("[N, K]", "float"): repeat([[0.1, 0.9], [0.5, 0.3], [0.2, 0.6]]),
        ("[]", "float"): torch.tensor(0.5),
    }
    return Rollouts(several if rewards > 1 else several[:, 0], torch.tensor(groups), mask), values
