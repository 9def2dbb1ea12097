"""How much is measured and trained, and in which pieces."""

from dataclasses import asdict, dataclass
from typing import Any

from pivot_study.drift import Regime
from pivot_study.policy import Cell

TRAINED = (
    "grpo",
    "dgpo 0.1",
    "dgpo half",
    "dgpo half, shuffled",
    "deviation half",
    "relative half",
    "oracle",
)
RATES = (3e-4, 1e-3, 3e-3)
CALM, NOISY = Regime(16, 3e-4, 80), Regime(2, 3e-3, 60)
REGIMES = (CALM, Regime(2, 3e-4, 160), Regime(16, 3e-3, 30), NOISY)


@dataclass(frozen=True)
class Plan:
    """A size of the study."""

    cells: tuple[Cell, ...] = (Cell("slots", "wide"), Cell("walk", "narrow"))
    seeds: int = 8
    rate_seeds: int = 2  # others, on which the learning rates are chosen
    gradient_seeds: int = 4  # the first, whose gradients are measured
    truth_groups: int = 512  # of 16 responses, for the true gradient
    small_batches: int = 8
    training_steps: int = 200
    warm_up_steps: int | None = None  # the task's
    least_reward: float = 0.1  # of a warm-up; else a fresh model takes its place
    regimes: tuple[Regime, ...] = REGIMES
    measured_regimes: tuple[Regime, ...] = (CALM, NOISY)  # in which gradients are measured
    trained: tuple[str, ...] = TRAINED
    rates: tuple[float, ...] = RATES

    def description(self) -> dict[str, Any]:
        return asdict(self)


PLANS = {
    "reduced": Plan(),
    "full": Plan(
        cells=tuple(Cell(task, style) for task in ("slots", "walk") for style in ("wide", "narrow")),
        seeds=16,
        gradient_seeds=8,
        rate_seeds=4,
        rates=(1e-4, *RATES),
        training_steps=400,
    ),
    "smoke": Plan(
        cells=(Cell("slots", "wide"),),
        seeds=2,
        rate_seeds=1,
        gradient_seeds=1,
        truth_groups=32,
        small_batches=2,
        training_steps=3,
        warm_up_steps=40,
        least_reward=0.0,
        regimes=(Regime(2, 3e-3, 3),),
        measured_regimes=(Regime(2, 3e-3, 3),),
        trained=("grpo", "relative half"),
        rates=(1e-3,),
    ),
}


@dataclass(frozen=True)
class Piece:
    """One record: a warm-up, a drift, a run for the choice of a learning rate, or a training run."""

    kind: str  # warm-up, drift, rate or train
    cell: Cell
    seed: int
    regime: Regime | None = None
    arm: str = ""
    rate: float = 0.0
    measured: bool = False  # gradients too

    @property
    def name(self) -> str:
        detail = [self.regime.name] if self.regime else [self.arm, f"{self.rate:g}"] if self.arm else []
        return (
            "-".join([self.kind, self.cell.name, str(self.seed), *detail]).replace(" ", "_").replace(",", "")
        )


RATE_SEED = 1000  # the first seed on which learning rates are chosen


def list_warm_ups(plan: Plan) -> list[Piece]:
    seeds = [*range(plan.seeds), *range(RATE_SEED, RATE_SEED + plan.rate_seeds)]
    return [Piece("warm-up", cell, seed) for seed in seeds for cell in plan.cells]


def list_drifts(plan: Plan) -> list[Piece]:
    return [
        Piece(
            "drift",
            cell,
            seed,
            regime,
            measured=seed < plan.gradient_seeds and regime in plan.measured_regimes,
        )
        for seed in range(plan.seeds)
        for cell in plan.cells
        for regime in plan.regimes
    ]


def list_rates(plan: Plan) -> list[Piece]:
    return [
        Piece("rate", cell, seed, arm=arm, rate=rate)
        for seed in range(RATE_SEED, RATE_SEED + plan.rate_seeds)
        for cell in plan.cells
        for arm in plan.trained
        for rate in plan.rates
    ]


def list_trainings(plan: Plan, chosen: dict[tuple[str, str], float]) -> list[Piece]:
    """One run per seed, cell and arm, with the learning rate chosen for the arm in the cell."""
    return [
        Piece("train", cell, seed, arm=arm, rate=chosen[cell.name, arm])
        for seed in range(plan.seeds)
        for cell in plan.cells
        for arm in plan.trained
    ]
