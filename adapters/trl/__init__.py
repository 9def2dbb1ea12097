"""TRL: GRPO training whose advantages come from an estimator named in TRL's own config."""

from credit.adapters.trl import hooks

hooks.check()

from credit.adapters.trl.settings import CreditGRPOConfig  # noqa: E402
from credit.adapters.trl.trainer import CreditGRPOTrainer, CreditMixin  # noqa: E402

__all__ = ["CreditGRPOConfig", "CreditGRPOTrainer", "CreditMixin"]
