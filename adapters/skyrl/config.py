"""SkyRL's config with two more entries: trainer.algorithm.credit and trainer.override_entrypoint.

SkyRL parses its config strictly, and its workers unpickle it, so that the classes have to be importable.
"""

from dataclasses import dataclass, field
from typing import Any

from skyrl.train.config import AlgorithmConfig, SkyRLTrainConfig, TrainerConfig


@dataclass
class CreditAlgorithmConfig(AlgorithmConfig):
    """trainer.algorithm, with the settings of the estimator that `advantage_estimator` names."""

    credit: dict[str, Any] = field(default_factory=dict)


@dataclass
class CreditTrainerConfig(TrainerConfig):
    """trainer, with the option by which SkyRL's command starts another program."""

    algorithm: CreditAlgorithmConfig = field(default_factory=CreditAlgorithmConfig)
    override_entrypoint: str | None = None


@dataclass
class CreditTrainConfig(SkyRLTrainConfig):
    """The whole of the config."""

    trainer: CreditTrainerConfig = field(default_factory=CreditTrainerConfig)
