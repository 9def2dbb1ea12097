"""An error where a config that names an estimator is given to a trainer that would not read it."""

from functools import wraps
from typing import Any

from trl import GRPOTrainer

from credit.adapters.trl import overlong
from credit.adapters.trl.settings import CreditGRPOConfig
from credit.adapters.trl.trainer import CreditMixin


def refuse_in_stock_trainers() -> None:
    """Makes GRPOTrainer, and its subclasses without CreditMixin, refuse a config whose estimator they ignore.

    A config does not learn which trainer it is given to, so `GRPOTrainer.__init__` is wrapped. With any
    other config the call is passed on as it is.
    """
    build = GRPOTrainer.__init__

    @wraps(build)
    def checked(self: Any, *positional: Any, **named: Any) -> None:
        args = named.get("args", positional[2] if len(positional) > 2 else None)
        if isinstance(args, CreditGRPOConfig) and not isinstance(self, CreditMixin):
            _refuse_ignored_settings(type(self).__name__, args)
        build(self, *positional, **named)

    GRPOTrainer.__init__ = checked


def _refuse_ignored_settings(trainer: str, args: CreditGRPOConfig) -> None:
    if args.advantage_estimator is not None:
        ignored = f"advantage_estimator={args.advantage_estimator!r}"
    elif overlong.has_penalty(args):
        ignored = f"overlong_cache_length={args.overlong_cache_length}"
    else:
        return
    instead = "CreditGRPOTrainer"
    if trainer != "GRPOTrainer":
        instead += f", or class Mine(CreditMixin, {trainer})"
    raise TypeError(
        f"{trainer} would ignore {ignored} of its CreditGRPOConfig; use {instead} of credit.adapters.trl"
    )
