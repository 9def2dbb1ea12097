"""From credit's flags to an estimator; OpenRLHF's args carry the choice to every worker."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import credit
from credit.adapters import fields

PREFIX = "credit_"  # of estimators whose names OpenRLHF has itself


class Choice(NamedTuple):
    """An estimator, and the checkpoint of its reference; None: the actor's own checkpoint."""

    estimator: credit.Estimator
    reference: str | None = None

    @property
    def statistics(self) -> tuple[str, ...]:
        """The token statistics that the estimator reads."""
        return fields.needed_statistics(self.estimator)

    @property
    def compares(self) -> bool:
        """Whether a reference model has to run."""
        return fields.needs_reference(self.estimator)

    @property
    def trains_critic(self) -> bool:
        """Whether OpenRLHF has to train a critic, whose values the estimator reads."""
        return "extra.values" in self.estimator.required_fields

    def loads_reference(self, lora_rank: int) -> bool:
        """Whether that model has weights of its own; with LoRA it may be the policy without its adapter."""
        return self.compares and (self.reference is not None or lora_rank == 0)


def parse_settings(name: str, settings: Mapping[str, Any]) -> Choice:
    """The estimator of that name; `settings` may hold `reference` and `preset`.

    Raises:
        ValueError: an unknown setting or a wrong value; the known ones are listed.
    """
    settings = dict(settings)
    reference = settings.pop("reference", None)
    choice = Choice(credit.parse({"name": name, **settings}), reference)
    if reference == "":
        raise ValueError("--credit.reference is empty; give a checkpoint, or leave it out for the actor's")
    if reference is not None and not choice.compares:
        raise ValueError(f"--credit.reference has no effect with {name}; leave it out")
    return choice
