"""The diagnostics of a batch and of its weights, as 0-d arrays."""

from typing import NamedTuple

from credit import groups, tokens
from credit.backends.arrays import as_type, make_masker, namespace
from credit.types import Array, Rollouts

MASKED_OFFSET = 1e38  # moves entries outside the mask past every weight, out of minimum and maximum
OWN = (
    "zero_variance_groups",
    "invalid_rows",
    "weight_std",
    "effective_token_fraction",
    "weight_min",
    "weight_max",
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
    rewards, valid = rollouts.rewards, rollouts.valid
    if rewards.ndim == 2:
        rewards = xp.sum(rewards, axis=1)
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
