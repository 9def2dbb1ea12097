"""TRL's GRPO settings and ours."""

from dataclasses import dataclass, field
from typing import Any

from trl import GRPOConfig

import credit


@dataclass
class CreditGRPOConfig(GRPOConfig):
    """GRPOConfig with the estimator's name and settings, from Python, YAML or the command line.

    An unknown name or a wrong setting raises ValueError here, before any model is loaded.
    """

    _VALID_DICT_FIELDS = [*GRPOConfig._VALID_DICT_FIELDS, "advantage_estimator_kwargs"]

    advantage_estimator: str | None = field(
        default=None,
        metadata={
            "help": "Estimator of the advantages: one of credit.names(), such as `dgpo`, `grpo` or `dapo`. "
            "Not set: TRL's own advantages."
        },
    )
    advantage_estimator_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Settings of the estimator, such as `{tau: 0.1}` in YAML or '{\"tau\": 0.1}' on the "
            "command line; `preset: trl` gives the constants of TRL's own GRPO."
        },
    )

    statistics_memory_mb: float = field(
        default=256.0,
        metadata={
            "help": "Megabytes (10^6 bytes) that scoring sampled tokens may take beside the models: sets how "
            "many rows policy and reference are run on at a time, at least one."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        estimator_of(self)
        if not self.statistics_memory_mb > 0:
            raise ValueError(f"statistics_memory_mb={self.statistics_memory_mb}; expected a positive number")


def estimator_of(args: Any) -> credit.Estimator | None:
    """The estimator that a trainer's arguments name, or None; a ValueError if they name it wrongly."""
    name = getattr(args, "advantage_estimator", None)
    settings = getattr(args, "advantage_estimator_kwargs", None) or {}
    if name is None:
        if settings:
            raise ValueError("advantage_estimator_kwargs is set, but advantage_estimator is not")
        return None
    return credit.parse({"name": name, **settings})
