"""How much is measured and trained, and in which pieces."""

from dataclasses import dataclass

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
CALMLY_TRAINED = ("grpo", "dgpo half", "dgpo half, shuffled", "deviation half", "oracle")
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
    training_groups: int = 1  # of 16 responses: few enough for the noise of the gradient to matter
    rates: tuple[float, ...] = RATES
    calm_training: Regime = Regime(4, 3e-4, 100)  # of all arms alike
    calmly_trained: tuple[str, ...] = CALMLY_TRAINED

    def training_at(self, rate: float) -> Regime:
        """What a training run takes at a learning rate."""
        return Regime(self.training_groups, rate, self.training_steps)


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
        calm_training=Regime(2, 3e-4, 3),
        calmly_trained=("grpo", "oracle"),
        rates=(1e-3,),
    ),
}


@dataclass(frozen=True)
class Piece:
    """One record: a warm-up, a drift, a run for the choice of a learning rate, or a training run."""

    kind: str  # warm-up, drift, rate, train or calm
    cell: Cell
    seed: int
    regime: Regime | None = None
    arm: str = ""
    measured: bool = False  # gradients too

    @property
    def name(self) -> str:
        detail = [self.arm] if self.arm else []
        if self.regime:
            detail.append(f"{self.regime.rate:g}" if self.arm else self.regime.name)
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
        Piece("rate", cell, seed, plan.training_at(rate), arm)
        for seed in range(RATE_SEED, RATE_SEED + plan.rate_seeds)
        for cell in plan.cells
        for arm in plan.trained
        for rate in plan.rates
    ]


def list_trainings(plan: Plan, chosen: dict[tuple[str, str], float]) -> list[Piece]:
    """One run per seed, cell and arm, with the learning rate chosen for the arm in the cell."""
    return [
        Piece("train", cell, seed, plan.training_at(chosen[cell.name, arm]), arm)
        for seed in range(plan.seeds)
        for cell in plan.cells
        for arm in plan.trained
    ]


def list_calm_trainings(plan: Plan) -> list[Piece]:
    """One run per seed, cell and arm, all with one small learning rate."""
    return [
        Piece("calm", cell, seed, plan.calm_training, arm)
        for seed in range(plan.seeds)
        for cell in plan.cells
        for arm in plan.calmly_trained
    ]
