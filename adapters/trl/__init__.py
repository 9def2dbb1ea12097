"""TRL: GRPO training whose advantages come from an estimator named in TRL's own config."""

from credit.adapters import versions

SUPPORTED = "==1.16.*"
versions.check_version("trl", SUPPORTED)

from credit.adapters.trl.config import CreditGRPOConfig  # noqa: E402
from credit.adapters.trl.trainer import CreditGRPOTrainer, CreditMixin  # noqa: E402

__all__ = ["CreditGRPOConfig", "CreditGRPOTrainer", "CreditMixin"]
