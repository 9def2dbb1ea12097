"""Tunix's GRPO settings, extended by those of credit."""

from dataclasses import dataclass
from typing import Any, Self

from tunix.rl.grpo.grpo_learner import GRPOConfig

import credit
from credit.adapters import traits
from credit.adapters.tunix.registry import LEARNER, PREFIX


@dataclass(kw_only=True)
class CreditSettings:
    """What the configs of all learners of credit have beside Tunix's own settings."""

    estimator: Any = "grpo"
    """A name of `credit.names()`, a mapping such as {"name": "dgpo", "tau": 0.1}, or an Estimator."""
    advantage_estimator: str = LEARNER
    """Tunix's own option, through which the learner receives the rewards; leave it as it is."""
    epsilon_high: float | None = None
    """Upper clip range; None: `epsilon`."""
    epsilon_c: float | None = None
    """Dual clip; None: none."""
    filter_groups: bool = False
    """Takes groups whose rewards, before any penalty, are equal out of the loss and its normalizer (dapo)."""
    overlong_cache: int | None = None
    """Tokens before the longest response over which DAPO's overlong penalty grows; None: no penalty."""
    overlong_penalty: float = 1.0
    """The largest overlong penalty, taken off the reward."""

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]
        kind = type(self).__name__
        if self.advantage_estimator != LEARNER:
            name = self.advantage_estimator
            raise ValueError(
                f"advantage_estimator={name!r} goes into Tunix's GRPOConfig; {kind} takes "
                f"estimator={name.removeprefix(PREFIX)!r}"
            )
        self.estimator = credit.parse(self.estimator)
        if self.epsilon_high is None:
            self.epsilon_high = self.epsilon  # type: ignore[attr-defined]
        if self.filter_groups and not traits.filters_groups(self.estimator):
            raise ValueError(
                f"filter_groups=True has no effect with {self.estimator.name}, which keeps every group; "
                "leave it out, or use dapo"
            )
        if self.overlong_cache is not None and self.overlong_cache < 1:
            raise ValueError(f"overlong_cache is {self.overlong_cache}; expected a number of tokens, or None")
        if not self.overlong_penalty >= 0:
            raise ValueError(f"overlong_penalty is {self.overlong_penalty}; expected 0 or more")

    @classmethod
    def dapo(cls, **settings: Any) -> Self:
        """DAPO (arXiv 2503.14476): clip-higher, token mean, no KL term, group filter, overlong penalty.

        The penalty acts over the last 4096 tokens, as in the paper, unless `overlong_cache` says otherwise.
        """
        preset: dict[str, Any] = {
            "estimator": "dapo",
            "epsilon": 0.2,
            "epsilon_high": 0.28,
            "beta": 0.0,
            "loss_agg_mode": "token-mean",
            "filter_groups": True,
            "overlong_cache": 4096,
        }
        return cls(**(preset | settings))


@dataclass(kw_only=True)
class CreditGRPOConfig(CreditSettings, GRPOConfig):
    """GRPOConfig with an estimator and its settings, for CreditGRPOLearner.

    An unknown name or a wrong setting raises ValueError here, before any model is loaded.
    """
