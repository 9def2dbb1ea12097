"""Properties of an estimator that no field of it tells; some are found by trying it on three responses."""

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from credit.estimators.base import Estimator
from credit.estimators.mix import Mix
from credit.estimators.on_baseline import OnBaseline
from credit.fields import EXTRAS, replace_arrays
from credit.types import FIELDS, Rollouts

OWN = ("[N, T]", "[N]", "[N, K]")
"""The shapes with which an array of the user's own is tried, as floats."""


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


def _try_advantages(estimator: Estimator, groups: list[int]) -> Any:
    """Advantages [3, 4], as a numpy array, of three responses with rewards 0, 1 and 3.

    They are torch tensors, as in the frameworks, since an estimator of the user's may expect them. None if
    it reads arrays of the user's own and takes none of their shapes.
    """
    import torch

    values = {
        ("[N, T]", "float"): torch.tensor(
            [[0.01, 0.3, 0.05, 0.6], [0.2, 0.02, 0.9, 0.1], [0.4, 0.7, 0.03, 0.25]]
        ),
        ("[N, T]", "integer"): torch.tensor([[0, 0, 1, 1]] * 3),
        ("[N, T]", "bool"): torch.tensor([[True, False, False, True]] * 3),
        ("[N]", "float"): torch.zeros(3),
        ("[N, K]", "float"): torch.tensor([[0.1, 0.9], [0.5, 0.3], [0.2, 0.6]]),
        ("[]", "float"): torch.tensor(0.5),
    }
    mask = torch.ones((3, 4), dtype=torch.bool)
    rewards = torch.tensor([0.0, 1.0, 3.0])
    weights = getattr(find_weigher(estimator), "reward_weights", None)
    rewards = torch.stack([rewards] * len(weights), dim=1) if weights else rewards
    rollouts = Rollouts(rewards, torch.tensor(groups), mask)
    rules, names = FIELDS | EXTRAS, estimator.required_fields
    known = {name: values[rules[name].shape, rules[name].kind] for name in names if name in rules}
    for k, name in enumerate(name for name in known if rules[name].most == 0):  # log-probs
        known[name] = torch.log(known[name]) * (1 + k)  # of two models they differ
    own = [name for name in names if name not in rules]
    if not own:
        return estimator(replace_arrays(rollouts, known)).advantages.numpy()
    for shapes in product(OWN, repeat=len(own)):
        arrays = {name: values[shape, "float"] for name, shape in zip(own, shapes, strict=True)}
        try:
            return estimator(replace_arrays(rollouts, known | arrays)).advantages.numpy()
        except Exception:  # what an estimator raises for an array of another shape is its own affair
            continue
    return None
