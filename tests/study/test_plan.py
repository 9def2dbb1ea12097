"""What the plans compare."""

import pytest
from estimator_study.plan import BASELINE, ESTIMATORS, PLANS
from estimator_study.tasks import TASKS

import credit


@pytest.mark.parametrize("plan", ["reduced", "full"])
def test_every_estimator_meets_every_task_and_seed_once(plan):
    units = PLANS[plan].units()
    runs = [(unit.task, unit.length, *run) for unit in units for run in unit.runs]
    whole = len(PLANS[plan].cells) * PLANS[plan].seeds * len(ESTIMATORS)
    assert len(runs) == len(set(runs)) == whole
    assert len({unit.name for unit in units}) == len(units)
    assert PLANS[plan].seeds >= 5


def test_the_full_plan_has_all_tasks_at_three_lengths():
    assert sorted(task for task, _ in PLANS["full"].cells) == sorted(3 * list(TASKS))


def test_settings_are_chosen_on_other_seeds():
    chosen_on = {seed for unit in PLANS["pilot"].units() for seed in unit.seeds}
    used = {seed for plan in ("reduced", "full") for unit in PLANS[plan].units() for seed in unit.seeds}
    assert not chosen_on & used


def test_the_estimators_are_those_of_the_library():
    kinds = {name: credit.parse(settings) for name, settings in ESTIMATORS.items()}
    assert kinds[BASELINE] == credit.GRPO()
    assert kinds["dgpo 0.5"] == credit.DGPO()
    assert kinds["deviation alone"].needs == ("deviation",)
    assert kinds["entropy alone"].needs == ("normalized_entropy",)
