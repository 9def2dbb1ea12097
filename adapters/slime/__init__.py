"""slime: advantages from an estimator that slime's own options name, as in credit.adapters.slime.dgpo."""

from typing import Any

import credit
from credit.adapters.slime.functions import Hooks

_hooks = Hooks()  # whose estimator slime's arguments name
advantages, before_log_prob = _hooks.advantages, _hooks.before_log_prob
check, keep_group = _hooks.check, _hooks.keep_group


def __getattr__(name: str) -> Any:
    """The function for advantages, under the name of its estimator."""
    if name in credit.names():
        return advantages
    raise AttributeError(
        f"credit.adapters.slime has no {name!r}; it has advantages, before_log_prob, check, keep_group, and "
        f"the estimators {', '.join(credit.names())}"
    )


__all__ = ["Hooks", "advantages", "before_log_prob", "check", "keep_group"]
