"""--algo.advantage.no_std_norm, which takes effect in the estimators that whiten over the batch's tokens."""

import credit
from credit.adapters import traits
from credit.estimators.mix import Mix
from credit.estimators.on_baseline import OnBaseline
from credit.estimators.whitening import Whitening

FLAG = "--algo.advantage.no_std_norm"


def whitens(estimator: credit.Estimator) -> bool:
    """Whether the estimator, its base or a part of a mix whitens over the batch's tokens."""
    return isinstance(estimator, Whitening) or any(map(whitens, traits.list_below(estimator)))


def leave_undivided(estimator: credit.Estimator, *, preset: bool) -> credit.Estimator:
    """The estimator with divide_by_std=False wherever it whitens.

    Args:
        preset: whether a preset, and not the user, has set `whiten_correction`, which has no effect then.

    Raises:
        ValueError: the user has set whiten_correction, or divide_by_std to True.
    """
    if isinstance(estimator, Mix):
        parts = tuple((factor, leave_undivided(part, preset=preset)) for factor, part in estimator.parts)
        return estimator.model_copy(update={"parts": parts})
    if isinstance(estimator, OnBaseline) and estimator.parsed_base is not None:
        return estimator.model_copy(update={"base": leave_undivided(estimator.parsed_base, preset=preset)})
    if not isinstance(estimator, Whitening):
        return estimator
    if estimator.divide_by_std and "divide_by_std" in estimator.model_fields_set:
        raise ValueError(
            f"{FLAG} and divide_by_std=True of {estimator.name} are both set; leave one of them out"
        )
    kept = {"divide_by_std": False} | ({"whiten_correction": 1} if preset else {})
    return estimator.model_copy(update=kept)
