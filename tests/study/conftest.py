"""A unit of the study that is over in seconds."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")
pytest.importorskip("matplotlib")

from estimator_study.plan import PLANS  # noqa: E402
from estimator_study.runs import Run  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def make_unit():
    """The smoke plan's unit; keywords replace its seeds, estimators, task, length or settings."""

    def make(settings=None, **replaced):
        (unit,) = PLANS["smoke"].units()
        return replace(unit, settings=replace(unit.settings, **(settings or {})), **replaced)

    return make


@pytest.fixture
def make_runs():
    """Finished runs of one task with the given accuracies, {estimator: one per seed}."""

    def make(accuracies, failed=()):
        return [
            make_run(name, seed, value, failed="it broke" if (name, seed) in failed else None)
            for name, values in accuracies.items()
            for seed, value in enumerate(values)
        ]

    return make


def make_run(name, seed, accuracy, failed):
    run = Run("sorting", 4, seed, name, {}, finished=True, failed=failed)
    run.evaluations = [
        {"evaluated": step, "accuracy": accuracy, "best_of_k": 1.0, "entropy": 0.5, "diversity": None}
        for step in (0, 1)
    ]
    shown = {"effective_token_fraction": 1.0, "weight_std": 0.0, "deviation": 0.0}
    run.steps = [{"step": 1, "gradient_norms": [1.0, 2.0 + accuracy], **shown}]
    return run
