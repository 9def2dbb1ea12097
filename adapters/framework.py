"""The contract between shared rules and adapters: what a framework provides and calls its options."""

from collections.abc import Mapping
from dataclasses import dataclass

from credit.estimators.base import Estimator
from credit.fields import EXTRA, EXTRAS
from credit.loss import Aggregation


@dataclass(frozen=True, kw_only=True)
class Framework:
    """A framework as the shared rules see it; each adapter has one instance, FRAMEWORK, in its hooks.py.

    Attributes:
        name: what its users call it.
        distribution: what pip calls it.
        supported: the version specifier that the adapter is written for; pyproject.toml has the same.
        provides: the arrays of Rollouts that the adapter itself fills in; those in `extra` as "extra.name".
        given: optional fields of Rollouts that the user gives by name, as arrays of their own.
        extra: in words, where the user puts arrays of their own for `Rollouts.extra`; empty: nowhere.
        group_size: the option that sets the number of responses per prompt.
        aggregations: the framework's names of loss aggregations, and what PolicyLoss calls them.
        rollout_log_probs: the setting that makes the framework record the sampling engine's log-probs.
        several_rewards: whether an estimator gets the rewards of several functions apart.
        runs_newer: whether a newer release than `supported` runs, with a warning, if its functions are known.
        prefix: what precedes an estimator's name in the framework's own options.
        loss_hint: explains values of loss options that read strangely in the report.
    """

    name: str
    distribution: str
    supported: str
    provides: tuple[str, ...]
    group_size: str
    aggregations: Mapping[str, Aggregation]
    extra: str
    given: tuple[str, ...] = ()
    rollout_log_probs: str = ""
    several_rewards: bool = False
    runs_newer: bool = False
    prefix: str = ""
    loss_hint: str = ""

    @property
    def requirement(self) -> str:
        """The framework and its supported releases, as pip takes them."""
        return f"{self.distribution}{self.supported}"

    def can_have(self, name: str) -> bool:
        """Whether a batch may have the array of that name; of a user's own, its first batch tells."""
        if name in (*self.provides, *self.given):
            return True
        rule = EXTRAS.get(name)
        return bool(self.extra) and name.startswith(EXTRA) and (rule is None or rule.source is None)

    def name_of(self, estimator: Estimator) -> str:
        """The estimator's name as the framework's users write it."""
        return self.prefix + estimator.name
