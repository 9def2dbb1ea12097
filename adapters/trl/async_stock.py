"""An error where TRL's asynchronous trainer is given a config whose estimator it would not read."""

from functools import wraps
from types import ModuleType
from typing import Any

from credit.adapters.trl.settings import CreditGRPOConfig


def refuse_other_configs(module: ModuleType) -> None:
    """Makes the AsyncGRPOTrainer of that module refuse a config of credit's unless it is ours that reads it.

    A config does not learn which trainer it is given to, so `__init__` is wrapped. Any other config is
    passed on as it is.
    """
    build = module.AsyncGRPOTrainer.__init__

    @wraps(build)
    def checked(self: Any, *positional: Any, **named: Any) -> None:
        args = named.get("args", positional[2] if len(positional) > 2 else None)
        ignored = getattr(args, "advantage_estimator", None)
        if isinstance(args, CreditGRPOConfig) or (ignored and not hasattr(self, "credit_estimator")):
            raise TypeError(
                f"{type(self).__name__} does not read advantage_estimator={ignored!r} of its "
                f"{type(args).__name__}; use CreditAsyncGRPOTrainer with a CreditAsyncGRPOConfig, both of "
                "credit.adapters.trl.async_grpo"
            )
        build(self, *positional, **named)

    module.AsyncGRPOTrainer.__init__ = checked
