"""The estimators; importing this package registers them."""

from credit.estimators.dgpo import DGPO
from credit.estimators.group_relative import DAPO, GRPO, DrGRPO
from credit.estimators.rloo import RLOO

__all__ = ["DAPO", "DGPO", "GRPO", "RLOO", "DrGRPO"]
