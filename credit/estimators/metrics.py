"""The diagnostics of a batch, of its weights and of its advantages, as 0-d arrays."""

from typing import NamedTuple

from credit import groups, tokens
from credit.backends.arrays import as_type, make_masker, namespace
from credit.backends.row_batching import map_row_blocks
from credit.several_rewards import sum_given
from credit.types import Array, Rollouts

MASKED_OFFSET = 1e38  # moves entries outside the mask past every weight, out of minimum and maximum
OWN = (
    "zero_variance_groups",
    "invalid_rows",
    "weight_std",
    "effective_token_fraction",
    "weight_min",
    "weight_max",
    "advantage_mean",
    "advantage_min",
    "advantage_max",
    "advantage_std",
    "advantage_positive_fraction",
)


class Observed(NamedTuple):
    """The sum and maximum over a response's tokens of a value from `Estimator.observed`, each [N]."""

    sums: Array
    largest: Array


class Responses(NamedTuple):
    """Sums over the tokens of each response, from which the metrics are computed; each [N]."""

    lengths: Array
    apart: Array  # sum of w - 1
    squares: Array  # sum of (w - 1)^2
    smallest: Array  # minimum of w
    largest: Array  # maximum of w
    observed: dict[str, Observed]

    def to_arrays(self) -> dict[tuple[str, ...], Array]:
        """All arrays by their path in this record: blocks of rows are filled in this form."""
        fields: dict[tuple[str, ...], Array]
        fields = {(name,): array for name, array in self._asdict().items() if name != "observed"}
        for name, values in self.observed.items():
            fields |= {("observed", name, field): array for field, array in values._asdict().items()}
        return fields

    @classmethod
    def from_arrays(cls, arrays: dict[tuple[str, ...], Array]) -> "Responses":
        """The record of arrays by path; arrays that are no part of it are ignored."""
        names = dict.fromkeys(path[1] for path in arrays if path[0] == "observed")
        observed = {
            name: Observed(*(arrays["observed", name, field] for field in Observed._fields)) for name in names
        }
        own = {name: arrays[(name,)] for name in cls._fields if name != "observed"}
        return cls(**own, observed=observed)


class Advantages(NamedTuple):
    """The advantages of each response's tokens, from which their metrics are computed; each [N]."""

    mean: Array
    std: Array  # of the population
    smallest: Array
    largest: Array


def check_observed_names(estimator: str, observed: dict[str, Array]) -> None:
    """A ValueError for a name whose metric would replace one of the metrics in OWN."""
    for name in observed:
        for metric in (f"{name}_mean", f"{name}_max"):
            if metric in OWN:
                raise ValueError(
                    f"observed() of {estimator} returns a value named {name!r}, whose metric {metric!r} "
                    "would replace the one that every estimator reports; give the value another name"
                )


def group_metrics(rollouts: Rollouts) -> dict[str, Array]:
    """The fraction of groups whose rewards are all equal, and the number of rows that are not valid."""
    xp = namespace(rollouts.rewards)
    rewards, valid = sum_given(rollouts.rewards), rollouts.valid
    dead = ~groups.varies(rewards, rollouts.groups, valid)
    return {
        "zero_variance_groups": groups.fraction(dead, rollouts.groups, valid, rewards.dtype),
        "invalid_rows": xp.sum(xp.astype(~valid, rewards.dtype)),
    }


def describe_responses(
    weights: Array, mask: Array, observed: dict[str, Array], *, uniform: bool
) -> Responses:
    """The sums of each response, from its weights and observed values [N, T].

    Weights are 0 outside the mask. `uniform` says that they are 1 inside, so no sums of them are needed.
    """
    xp = namespace(weights)
    present = weights if uniform else as_type(mask, weights.dtype)
    lengths = xp.sum(present, axis=-1)
    beyond = 0.0 if uniform and not observed else (1.0 - present) * MASKED_OFFSET
    inside = make_masker(mask)
    further = {}
    for name, values in observed.items():
        clean = inside(values)
        further[name] = Observed(xp.sum(clean, axis=-1), xp.max(clean - beyond, axis=-1))
    if uniform:
        zeros = 0.0 * lengths
        return Responses(lengths, zeros, zeros, zeros + 1.0, zeros + 1.0, further)
    apart = weights - present  # from 1, near which squares would lose their digits
    return Responses(
        lengths,
        xp.sum(apart, axis=-1),
        xp.sum(apart * apart, axis=-1),
        xp.min(weights + beyond, axis=-1),
        xp.max(weights - beyond, axis=-1),
        further,
    )


def token_metrics(responses: Responses) -> dict[str, Array]:
    """The metrics of the weights, and the mean and maximum of each observed value.

    ESS / T = (sum w)^2 / (T sum w^2) is averaged over responses whose weights are not all 0.
    """
    lengths, apart, squares = responses.lengths, responses.apart, responses.squares
    xp = namespace(lengths)
    count = xp.clip(xp.sum(lengths), min=1.0)
    variance = xp.sum(squares) / count - (xp.sum(apart) / count) ** 2
    sums, powers = lengths + apart, lengths + 2.0 * apart + squares
    fraction = sums * sums / xp.where(powers == 0.0, 1.0, lengths * powers)
    some = lengths > 0.0
    found = {
        "weight_std": xp.sqrt(xp.clip(variance, min=0.0)),
        "effective_token_fraction": tokens.mean(fraction, powers != 0.0),
        "weight_min": tokens.extreme(responses.smallest, some, largest=False),
        "weight_max": tokens.extreme(responses.largest, some, largest=True),
    }
    for name, values in responses.observed.items():
        found[f"{name}_mean"] = xp.sum(values.sums) / count
        found[f"{name}_max"] = tokens.extreme(values.largest, some, largest=True)
    return found


def count_positive(advantages: Array, alone: Array | None, responses: Responses, *, uniform: bool) -> Array:
    """Number [N] of tokens with A > 0, from advantages [N, T] that are 0 outside the mask.

    Where A_i [N] is not None and weights are `uniform`, no pass over the tokens is needed.
    """
    if uniform and alone is not None:
        return responses.lengths * as_type(alone > 0.0, alone.dtype)
    return namespace(advantages).sum(as_type(advantages > 0.0, advantages.dtype), axis=-1)


def describe_product(alone: Array, responses: Responses) -> Advantages:
    """The advantages A_i w of each response, from A_i [N] and what describes w: without a pass over tokens.

    Their spread is taken about A_i, of which float32 then loses no digits to squares.
    """
    xp, lengths = namespace(alone), responses.lengths
    some, count = lengths > 0.0, xp.clip(lengths, min=1.0)
    alone = xp.where(some, alone, 0.0)  # where there are no tokens, A_i may be NaN
    apart = responses.apart / count
    variance = xp.clip(responses.squares / count - apart * apart, min=0.0)
    ends = alone * responses.smallest, alone * responses.largest
    return Advantages(
        alone + alone * apart, xp.abs(alone) * xp.sqrt(variance), xp.minimum(*ends), xp.maximum(*ends)
    )


def describe_advantages(advantages: Array, mask: Array) -> Advantages:
    """The advantages [N, T] of each response, for those that are no product; spread about their mean."""
    parts = map_row_blocks(lambda rows: _describe_rows(advantages[rows, :], mask[rows, :])._asdict(), mask)
    return Advantages(**parts)


def _describe_rows(advantages: Array, mask: Array) -> Advantages:
    xp, inside, none = namespace(advantages), make_masker(mask), float("inf")
    lengths = xp.sum(as_type(mask, advantages.dtype), axis=-1)
    some, count = lengths > 0.0, xp.clip(lengths, min=1.0)
    smallest = xp.where(some, xp.min(inside(advantages, none), axis=-1), 0.0)
    largest = xp.where(some, xp.max(inside(advantages, -none), axis=-1), 0.0)
    unit = _choose_unit(smallest, largest)
    scaled = inside((advantages - smallest[:, None]) / unit[:, None])
    mean = xp.sum(scaled, axis=-1) / count
    scaled = inside(scaled - mean[:, None])
    std = xp.sqrt(xp.sum(scaled * scaled, axis=-1) / count)
    return Advantages(smallest + unit * mean, unit * std, smallest, largest)


def advantage_metrics(found: Advantages, positive: Array, lengths: Array) -> dict[str, Array]:
    """The metrics of the advantages over all tokens, from the numbers [N] of positive ones and of all.

    As that of the weights, their standard deviation is the population's. All are NaN if an advantage is.
    """
    xp = namespace(lengths)
    some, count = lengths > 0.0, xp.clip(xp.sum(lengths), min=1.0)
    share = lengths / count
    smallest = tokens.extreme(found.smallest, some, largest=False)
    largest = tokens.extreme(found.largest, some, largest=True)
    # Measured from the smallest on, the mean of equal advantages is exact and their deviation 0.
    mean = smallest + xp.sum(share * (found.mean - smallest))
    unit = _choose_unit(smallest, largest)
    apart, within = (found.mean - mean) / unit, found.std / unit
    return {
        "advantage_mean": mean,
        "advantage_min": smallest,
        "advantage_max": largest,
        "advantage_std": unit * xp.sqrt(xp.sum(share * (apart * apart + within * within))),
        "advantage_positive_fraction": xp.where(xp.isnan(mean), mean, xp.sum(positive) / count),
    }


def measure_advantages(advantages: Array, mask: Array) -> dict[str, Array]:
    """The metrics of advantages [N, T] that an adapter has changed after the estimator; mask [N, T], bool."""
    lengths = namespace(advantages).sum(as_type(mask, advantages.dtype), axis=-1)
    inside = make_masker(mask)(advantages)
    positive = namespace(advantages).sum(as_type(inside > 0.0, advantages.dtype), axis=-1)
    return advantage_metrics(describe_advantages(inside, mask), positive, lengths)


def _choose_unit(smallest: Array, largest: Array) -> Array:
    """The largest magnitude, in which squares neither overflow nor vanish; 1 where all are 0."""
    xp = namespace(smallest)
    unit = xp.maximum(xp.abs(smallest), xp.abs(largest))
    return xp.where(unit > 0.0, unit, 1.0)
