"""ms-swift: GRPO training whose advantages come from an estimator that a plugin file names."""

from credit.adapters.hooks import check_framework
from credit.adapters.swift.hooks import FRAMEWORK, FUNCTIONS

check_framework(FRAMEWORK, FUNCTIONS)

from credit.adapters.swift.settings import train_with  # noqa: E402

__all__ = ["train_with"]
