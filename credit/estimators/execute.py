"""Runs an estimator's formula on rollouts: preparation, blocks of rows, metrics and conversion back."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from credit import validation
from credit.backends.arrays import (
    as_type,
    from_numpy,
    is_in_range,
    is_inspectable,
    make_masker,
    namespace,
    stop_gradient,
    to_numpy,
)
from credit.backends.row_batching import map_row_blocks
from credit.estimators import drift, metrics
from credit.estimators.prepare import (
    drop_tokens,
    prepare_rollouts,
    prepare_rows,
    prepare_tokens,
    slice_rows,
    view_as_numpy,
)
from credit.estimators.targets import warn_of_missed_targets
from credit.types import Array, Credit, Rollouts

# Named here, since torch.compile cannot evaluate such an annotation of a function within a function.
_Arrays = dict[tuple[str, ...], Array]


class Formula(Protocol):
    """The members of `credit.Estimator` that are used here; it documents them."""

    @property
    def name(self) -> str: ...
    @property
    def required_fields(self) -> tuple[str, ...]: ...
    @property
    def is_product(self) -> bool: ...
    @property
    def runs_in_blocks(self) -> bool: ...
    def advantages(self, rollouts: Rollouts) -> Array: ...
    def weights(self, rollouts: Rollouts, advantages: Array) -> Array: ...
    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]: ...
    def observed(self, rollouts: Rollouts) -> dict[str, Array]: ...
    @property
    def observes_weights(self) -> bool: ...
    def observed_weights(
        self, rollouts: Rollouts, advantages: Array | None, weights: Array
    ) -> dict[str, Array]: ...


class _Batch(NamedTuple):
    """Prepared rollouts; in blocks of rows, the token fields of a block are prepared by `take`."""

    rows: Rollouts
    in_blocks: bool
    advantages: Array | None  # A_i [N] if the advantages are a product A_i w
    lost: Array | None  # [N], bool: rows whose group id is out of range but could not be checked

    def take(self, part: slice) -> Rollouts:
        return prepare_tokens(slice_rows(self.rows, part)) if self.in_blocks else self.rows

    def map(self, work: Callable[[slice], _Arrays]) -> _Arrays:
        return map_row_blocks(work, self.rows.mask) if self.in_blocks else work(slice(None))


def compute_credit(estimator: Formula, rollouts: Rollouts) -> Credit:
    """The advantages and weights, 0 outside the mask and NaN for lost rows, and the metrics."""
    batch = _prepare_batch(estimator, rollouts)

    def work(part: slice) -> _Arrays:
        here, alone = batch.take(part), None
        if batch.advantages is None:
            advantages, weights = estimator.assign(here)
        else:
            alone = batch.advantages[part]
            weights = estimator.weights(here, alone)
            advantages = multiply(alone, weights)
        uniform, inside = weights is here.mask, make_masker(here.mask)
        weights = as_type(weights, advantages.dtype)
        weights = weights if uniform else inside(weights)
        observed = estimator.observed(here)
        if estimator.observes_weights:
            observed = estimator.observed_weights(here, alone, weights) | observed
        metrics.check_observed_names(estimator.name, observed)
        responses = metrics.describe_responses(weights, here.mask, observed, uniform=uniform)
        advantages = inside(advantages)
        described = {("positive",): metrics.count_positive(advantages, alone, responses, uniform=uniform)}
        if batch.advantages is not None and drift.is_known(here):
            described[("drift",)] = drift.sum_drift(here)
        advantages = _mark_lost_tokens(advantages, batch.lost, rollouts.mask, part)
        return {("advantages",): advantages, ("weights",): weights} | responses.to_arrays() | described

    found = batch.map(work)
    advantages, weights = found[("advantages",)], found[("weights",)]
    responses = metrics.Responses.from_arrays(found)
    if batch.advantages is None:
        spread = metrics.describe_advantages(advantages, batch.rows.mask)
    else:
        spread = metrics.describe_product(batch.advantages, responses)
    measured = metrics.group_metrics(batch.rows) | metrics.token_metrics(responses)
    measured |= metrics.advantage_metrics(spread, found[("positive",)], responses.lengths)
    if ("drift",) in found:
        some = responses.lengths > 0.0
        measured["drift_alignment"] = drift.align_drift(batch.advantages, found[("drift",)], some)
    if estimator.observes_weights:
        warn_of_missed_targets(measured, stacklevel=3)
    back = partial(from_numpy, like=rollouts.mask)
    return Credit(back(advantages), back(weights), {name: back(each) for name, each in measured.items()})


def compute_factors(
    estimator: Formula, rollouts: Rollouts, advantages: Array | None = None
) -> tuple[Array, Array]:
    """A_i [N] and w [N, T] by the rules of `compute_credit`; A_i is computed if it is None."""
    if not estimator.is_product:
        raise ValueError(
            f"{estimator.name} computes advantages that are not a product A_i w_{{i,t}}, so they have no "
            "factors; call the estimator itself"
        )
    batch = _prepare_batch(estimator, rollouts, advantages)
    alone: Array = batch.advantages

    def work(part: slice) -> _Arrays:
        here = batch.take(part)
        weights = as_type(estimator.weights(here, alone[part]), alone.dtype)
        return {("weights",): make_masker(here.mask)(weights)}

    weights = batch.map(work)[("weights",)]
    alone = namespace(alone).where(batch.rows.valid, alone, 0.0)
    if batch.lost is not None:
        alone = namespace(alone).where(batch.lost, float("nan"), alone)
    return from_numpy(alone, rollouts.mask), from_numpy(weights, rollouts.mask)


def compute_tokens(estimator: Formula, rollouts: Rollouts, function: Callable[[Rollouts], Array]) -> Array:
    """function(prepared rollouts) [N, T], with 0 outside the mask and NaN for lost rows."""
    prepared = prepare_rollouts(estimator.name, rollouts, estimator.required_fields)
    values = make_masker(prepared.mask)(function(prepared))
    return _mark_lost_tokens(values, _find_lost_rows(rollouts), rollouts.mask, slice(None))


def multiply(advantages: Array, weights: Array) -> Array:
    """A_i w_{i,t} [N, T], in the dtype of A_i."""
    return advantages[:, None] * as_type(weights, advantages.dtype)


def _prepare_batch(estimator: Formula, rollouts: Rollouts, advantages: Array | None = None) -> _Batch:
    rows = prepare_rows(estimator.name, rollouts, estimator.required_fields)
    in_blocks = estimator.runs_in_blocks
    rows = view_as_numpy(rows) if in_blocks else prepare_tokens(rows)
    if advantages is not None:
        advantages = _check_advantages(advantages, rollouts, rows)
    elif estimator.is_product:
        advantages = estimator.advantages(drop_tokens(rows) if in_blocks else rows)
    return _Batch(rows, in_blocks, advantages, _find_lost_rows(rollouts))


def _check_advantages(advantages: Array, rollouts: Rollouts, rows: Rollouts) -> Array:
    """The caller's A_i [N] in the dtype and library of the prepared rows, without gradient."""
    validation.check_same_library(advantages=advantages, mask=rollouts.mask)
    validation.check_shape("advantages", advantages, rollouts.mask.shape[:1], "one per row of the mask")
    advantages = stop_gradient(advantages)
    if namespace(rows.mask) is not namespace(rollouts.mask):
        advantages = to_numpy(advantages)
    return as_type(advantages, rows.rewards.dtype)


def _find_lost_rows(rollouts: Rollouts) -> Array | None:
    """Rows [N] whose group id is out of range; None where `prepare_rows` has checked the ids already."""
    groups = rollouts.groups
    return None if is_inspectable(groups) else ~is_in_range(groups, groups.shape[0])


def _mark_lost_tokens(values: Array, lost: Array | None, mask: Array, part: slice) -> Array:
    """The values [rows, T] of a block, with NaN at the mask's tokens of lost rows."""
    if lost is None:
        return values
    nowhere = lost[part][:, None] & as_type(mask[part, :], lost.dtype)
    return namespace(lost).where(nowhere, float("nan"), values)
