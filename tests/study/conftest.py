"""A unit of the study that is over in seconds."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")
pytest.importorskip("matplotlib")

from estimator_study.plan import PLANS  # noqa: E402


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
