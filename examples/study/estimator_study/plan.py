"""What is compared with what, and how much of it: estimators, settings and the sizes of the study."""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import pydantic

import credit

BASELINE = "grpo"


class EntropyOnly(credit.Redistributing):
    """Credit goes to uncertain tokens, whether they deviate or not."""

    name: Literal["entropy_only"] = "entropy_only"

    @property
    def needs(self) -> tuple[str, ...]:
        return ("normalized_entropy", *self.turn_fields)

    def score(self, rollouts: credit.Rollouts) -> Any:
        return rollouts.normalized_entropy


ESTIMATORS: dict[str, dict[str, Any]] = {
    BASELINE: {"name": "grpo"},
    "dapo": {"name": "dapo"},
    "dgpo 0.5": {"name": "dgpo", "tau": 0.5},
    "dgpo 0.1": {"name": "dgpo", "tau": 0.1},
    "dgpo 0.05": {"name": "dgpo", "tau": 0.05},
    "dgpo adaptive": {"name": "dgpo", "effective_fraction": 0.5},
    "entropy alone": {"name": "entropy_only", "tau": 0.1},
    "deviation alone": {"name": "dgpo", "kappa": 0.0, "tau": 0.1},
}


Count = Annotated[int, pydantic.Field(gt=0)]
Positive = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]


@pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid", strict=True))
class Settings:
    """Of every run alike: the model, its warm-up, and what a step samples and trains on."""

    steps: Count = 80
    prompts: Count = 8  # a step samples `prompts` x `samples` completions, for every estimator
    samples: Count = 8
    updates: Count = 2  # on each batch of completions
    learning_rate: Positive = 3e-4
    largest_gradient: Positive = 1.0  # longer ones are cut to this norm
    width: Annotated[int, pydantic.Field(gt=0, multiple_of=4)] = 64  # of four heads
    layers: Count = 2
    warm_up_accuracy: Annotated[float, pydantic.Field(ge=0, le=1)] = 0.2
    warm_up_steps: Annotated[int, pydantic.Field(ge=0)] = 2000
    warm_up_prompts: Count = 128
    warm_up_rate: Positive = 2e-3
    evaluate_every: Count = 10
    evaluation_prompts: Count = 32
    final_prompts: Count = 256
    evaluation_samples: Count = 8


@dataclass(frozen=True)
class Unit:
    """Runs that are computed side by side: every estimator on one task, for some seeds."""

    task: str
    length: int
    seeds: tuple[int, ...]
    estimators: dict[str, dict[str, Any]]
    settings: Settings

    @property
    def name(self) -> str:
        return f"{self.task}-{self.length}-{self.seeds[0]}"

    @property
    def runs(self) -> list[tuple[int, str]]:
        """Seed and estimator of each run, in the order of the models."""
        return [(seed, name) for seed in self.seeds for name in self.estimators]

    def description(self) -> dict[str, Any]:
        """All that decides the unit's numbers, as JSON has it."""
        return asdict(self) | {"seeds": list(self.seeds)}


@dataclass(frozen=True)
class Plan:
    """A size of the study: `together` seeds make a unit."""

    cells: tuple[tuple[str, int], ...]  # task and length
    seeds: int
    together: int = 1
    first_seed: int = 0
    settings: Settings = field(default_factory=Settings)
    estimators: dict[str, dict[str, Any]] = field(default_factory=lambda: dict(ESTIMATORS))

    def units(self) -> list[Unit]:
        """Seed by seed, so that a study cut short has whole pairs on every task."""
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        return [
            Unit(task, length, tuple(seeds[start : start + self.together]), self.estimators, self.settings)
            for start in range(0, self.seeds, self.together)
            for task, length in self.cells
        ]


REDUCED = (("running_sums", 4), ("running_sums", 8), ("brackets", 8))
FULL = (
    *(("running_sums", length) for length in (6, 10, 14)),
    *(("addition_chain", length) for length in (2, 3, 4)),
    *(("sorting", length) for length in (6, 9, 12)),
    *(("brackets", length) for length in (8, 12, 16)),
)
PLANS = {
    "reduced": Plan(cells=REDUCED, seeds=8),
    "full": Plan(
        FULL, seeds=16, together=16, settings=Settings(steps=200, evaluation_prompts=128, warm_up_steps=4000)
    ),
    # For choosing settings, on seeds that the other plans do not use.
    "pilot": Plan(
        REDUCED,
        seeds=2,
        first_seed=1000,
        estimators={name: ESTIMATORS[name] for name in (BASELINE, "dapo", "dgpo 0.1")},
    ),
    "smoke": Plan(
        cells=(("brackets", 4),),
        seeds=1,
        settings=Settings(
            steps=4,
            prompts=4,
            samples=4,
            width=32,
            layers=1,
            warm_up_accuracy=0.2,
            warm_up_steps=400,
            evaluate_every=2,
            evaluation_prompts=16,
            final_prompts=16,
            evaluation_samples=4,
        ),
        estimators={name: ESTIMATORS[name] for name in (BASELINE, "dgpo 0.1")},
    ),
}
