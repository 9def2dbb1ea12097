"""TRL: GRPO training whose advantages come from an estimator named in TRL's own config."""

from importlib.metadata import version

SUPPORTED = "1.16"

found = version("trl")
if not found.startswith(f"{SUPPORTED}."):
    raise ImportError(
        f"credit.adapters.trl supports TRL {SUPPORTED}.x and found {found}; pip install 'trl=={SUPPORTED}.*'"
    )

from credit.adapters.trl.config import CreditGRPOConfig  # noqa: E402
from credit.adapters.trl.trainer import CreditGRPOTrainer, CreditMixin  # noqa: E402

__all__ = ["CreditGRPOConfig", "CreditGRPOTrainer", "CreditMixin"]
