"""From credit's flags to an estimator; OpenRLHF's args carry the choice to every worker."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import credit
from credit.adapters import fields
from credit.adapters.record_settings import check_record_settings

PREFIX = "credit_"  # of estimators whose names OpenRLHF has itself
RECORDS = ("record_steps", "record_completions", "record_path")


class Choice(NamedTuple):
    """An estimator, the checkpoint of its reference, and what is recorded."""

    estimator: credit.Estimator
    reference: str | None = None  # None: the actor's own checkpoint
    record_steps: int | None = None  # completions are recorded every so many steps; None: never
    record_completions: int = 16  # at most, in whole groups
    record_path: str | None = None  # None: credit.jsonl in --ckpt.output_dir

    @property
    def statistics(self) -> tuple[str, ...]:
        """The token statistics that the estimator reads."""
        return fields.needed_statistics(self.estimator)

    @property
    def scored(self) -> tuple[str, ...]:
        """The token statistics that the policy's workers compute: also what is logged or recorded."""
        if not self.statistics:
            return ()
        shown = fields.list_shown(self.estimator) if self.record_steps else ()
        names = (*fields.add_logged(self.statistics), *fields.list_compared(self.estimator), *shown)
        return tuple(dict.fromkeys(names))

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
    """The estimator of that name; `settings` may hold `preset` and the other fields of a Choice.

    Raises:
        ValueError: an unknown setting or a wrong value; the known ones are listed.
    """
    settings = dict(settings)
    reference = settings.pop("reference", None)
    records = {name: settings.pop(name) for name in RECORDS if name in settings}
    check_record_settings(records, "--credit.")
    choice = Choice(credit.parse({"name": name, **settings}), reference, **records)
    if reference == "":
        raise ValueError("--credit.reference is empty; give a checkpoint, or leave it out for the actor's")
    if reference is not None and not choice.compares:
        raise ValueError(f"--credit.reference has no effect with {name}; leave it out")
    return choice
