"""The arrays of Rollouts that come from models: what an estimator needs of them, and what is logged."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from credit import tokens
from credit.estimators.base import Estimator
from credit.fields import EXTRA, EXTRAS
from credit.types import FIELDS, TokenStatistics

_RULES = FIELDS | EXTRAS
ALSO = tuple(name for name, rule in EXTRAS.items() if rule.source in ("policy", "reference"))
"""The statistics that `credit.token_statistics` computes if `also` names them, as they stand in `needs`."""
STATISTICS = (*TokenStatistics._fields, *ALSO)
REFERENCE_FIELDS = tuple(name for name in STATISTICS if _RULES[name].source == "reference")
"""The statistics that need a reference model."""
LOGGED = {"extra.entropy": "entropy_mean", "extra.kl": "kl_mean"}
"""The metrics, means over the tokens, of statistics that are computed wherever their models run anyway."""


def needed_statistics(estimator: Estimator) -> tuple[str, ...]:
    """The token statistics that the estimator reads."""
    return tuple(name for name in estimator.required_fields if name in STATISTICS)


def needs_reference(estimator: Estimator) -> bool:
    """Whether the estimator reads a statistic that needs a reference model."""
    return bool(set(estimator.required_fields) & set(REFERENCE_FIELDS))


def add_logged(names: Sequence[str]) -> tuple[str, ...]:
    """The statistics of those names, and the logged ones of the models that these run."""
    if not names:
        return ()
    compares = bool(set(names) & set(REFERENCE_FIELDS))
    logged = [name for name in LOGGED if compares or name not in REFERENCE_FIELDS]
    return tuple(dict.fromkeys((*names, *logged)))


def list_compared(estimator: Estimator) -> tuple[str, ...]:
    """What `drift_alignment` is computed from, where the estimator runs both models anyway."""
    return ("log_probs", "reference_log_probs") if needs_reference(estimator) else ()


def list_shown(estimator: Estimator) -> tuple[str, ...]:
    """The statistics that `credit.lens` shows, as far as the models that the estimator needs give them."""
    hidden = () if needs_reference(estimator) else REFERENCE_FIELDS
    return tuple(name for name in TokenStatistics._fields if name not in hidden)


def compute_by_name(
    function: Callable[..., Any], names: Sequence[str], *arrays: Any, **options: Any
) -> dict[str, Any]:
    """The statistics of those names from `credit.token_statistics` or `token_statistics_from_hidden`."""
    also = tuple(name.removeprefix(EXTRA) for name in names if name in ALSO)
    found = function(*arrays, **options, also=also)
    four, further = found if also else (found, {})
    every = four._asdict() | {EXTRA + name: array for name, array in further.items()}
    return {name: every[name] for name in names}


def measure_logged(arrays: Mapping[str, Any], mask: Any) -> dict[str, Any]:
    """The metrics, 0-d, of the logged statistics [N, T] among the arrays, over the tokens of the mask."""
    return {LOGGED[name]: tokens.mean(array, mask) for name, array in arrays.items() if name in LOGGED}
