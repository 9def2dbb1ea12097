"""The optional fields of Rollouts that come from models, and what an estimator needs of them."""

from credit.estimators.base import Estimator
from credit.types import FIELDS, TokenStatistics

STATISTICS = TokenStatistics._fields
REFERENCE_FIELDS = tuple(name for name in STATISTICS if FIELDS[name].source == "reference")
"""The statistics that need a reference model."""


def needed_statistics(estimator: Estimator) -> tuple[str, ...]:
    """The token statistics that the estimator reads."""
    return tuple(name for name in estimator.required_fields if name in STATISTICS)


def needs_reference(estimator: Estimator) -> bool:
    """Whether the estimator reads a statistic that needs a reference model."""
    return bool(set(estimator.required_fields) & set(REFERENCE_FIELDS))
