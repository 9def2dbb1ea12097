"""An error where a config that names an estimator is given to a trainer that would not read it.

A config does not learn which trainer it is given to, so `__init__` of TRL's trainers is wrapped. With any
other config the call is passed on as it is.
"""

from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

from trl import GRPOTrainer

from credit.adapters.trl import overlong
from credit.adapters.trl.settings import CreditGRPOConfig
from credit.adapters.trl.trainer import CreditMixin


def refuse_in_stock_trainers() -> None:
    """Makes GRPOTrainer, and subclasses without CreditMixin, refuse a config whose estimator they ignore."""
    _check_configs(GRPOTrainer, _find_ignored)


def refuse_in_async_trainers(module: ModuleType) -> None:
    """Makes that module's AsyncGRPOTrainer refuse a config whose estimator it ignores."""
    _check_configs(module.AsyncGRPOTrainer, _find_ignored_in_async)


def _check_configs(kind: Any, find_ignored: Callable[[Any, Any], str | None]) -> None:
    build = kind.__init__

    @wraps(build)
    def checked(self: Any, *positional: Any, **named: Any) -> None:
        args = named.get("args", positional[2] if len(positional) > 2 else None)
        ignored = find_ignored(self, args)
        if ignored:
            raise TypeError(f"{type(self).__name__} would ignore {ignored}")
        build(self, *positional, **named)

    kind.__init__ = checked


def _find_ignored(trainer: Any, args: Any) -> str | None:
    """What the trainer would ignore, and the way out; None: nothing."""
    if not isinstance(args, CreditGRPOConfig) or hasattr(trainer, "credit"):  # which CreditMixin has set
        return None
    if args.advantage_estimator is not None:
        setting = f"advantage_estimator={args.advantage_estimator!r}"
    elif overlong.has_penalty(args):
        setting = f"overlong_cache_length={args.overlong_cache_length}"
    else:
        return None
    name = type(trainer).__name__
    if isinstance(trainer, CreditMixin):
        return f"{setting} of its CreditGRPOConfig; list CreditMixin before the trainer among its bases"
    mixed = "" if name == "GRPOTrainer" else f", or class Mine(CreditMixin, {name})"
    return f"{setting} of its CreditGRPOConfig; use CreditGRPOTrainer{mixed} of credit.adapters.trl"


def _find_ignored_in_async(trainer: Any, args: Any) -> str | None:
    estimator = getattr(args, "advantage_estimator", None)
    reads_it = hasattr(trainer, "credit_estimator") and not isinstance(args, CreditGRPOConfig)
    if estimator is None or reads_it:
        return None
    return (
        f"advantage_estimator={estimator!r} of its {type(args).__name__}; use CreditAsyncGRPOTrainer with a "
        "CreditAsyncGRPOConfig, both of credit.adapters.trl.async_grpo"
    )
