"""Tunix: GRPO training in JAX whose advantages come from an estimator named in Tunix's own config."""

from credit.adapters.hooks import check_framework
from credit.adapters.tunix.hooks import FRAMEWORK, FUNCTIONS

check_framework(FRAMEWORK, FUNCTIONS)

from credit.adapters.tunix.agentic import (  # noqa: E402
    CreditAgenticGRPOConfig,
    CreditAgenticGRPOLearner,
)
from credit.adapters.tunix.extra import log_extra  # noqa: E402
from credit.adapters.tunix.registry import register_estimators as register  # noqa: E402
from credit.adapters.tunix.settings import CreditGRPOConfig  # noqa: E402
from credit.adapters.tunix.trainer import CreditGRPOLearner  # noqa: E402

register()

__all__ = [
    "CreditAgenticGRPOConfig",
    "CreditAgenticGRPOLearner",
    "CreditGRPOConfig",
    "CreditGRPOLearner",
    "log_extra",
    "register",
]
