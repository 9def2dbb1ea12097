"""What a filter of dynamic sampling returns."""

from dataclasses import dataclass


@dataclass
class DynamicFilterOutput:
    """Whether the samples of a prompt are kept, and if not, why."""

    keep: bool
    reason: str | None = None
