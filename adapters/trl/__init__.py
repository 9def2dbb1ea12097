"""TRL: GRPO training whose advantages come from an estimator named in TRL's own config."""

from credit.adapters.trl.unsloth import check_installed

check_installed()

from credit.adapters.post_import import call_after_import  # noqa: E402
from credit.adapters.trl.settings import CreditGRPOConfig  # noqa: E402
from credit.adapters.trl.stock_trainer import refuse_in_async_trainers, refuse_in_stock_trainers  # noqa: E402
from credit.adapters.trl.trainer import CreditGRPOTrainer, CreditMixin  # noqa: E402

refuse_in_stock_trainers()
call_after_import("trl.experimental.async_grpo.async_grpo_trainer", refuse_in_async_trainers)

__all__ = ["CreditGRPOConfig", "CreditGRPOTrainer", "CreditMixin"]
