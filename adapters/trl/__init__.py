"""TRL: GRPO training whose advantages come from an estimator named in TRL's own config."""

from credit.adapters.trl import contracts

contracts.check()

from credit.adapters.trl.config import CreditGRPOConfig  # noqa: E402
from credit.adapters.trl.trainer import CreditGRPOTrainer, CreditMixin  # noqa: E402

__all__ = ["CreditGRPOConfig", "CreditGRPOTrainer", "CreditMixin"]
