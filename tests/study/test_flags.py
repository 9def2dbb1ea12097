"""What a user may ask for, what is refused before anything is computed, and other systems than Linux."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from estimator_study import flags, tasks
from estimator_study.plan import PLANS

import credit.backends.numpy.threads as threads

STUDY = Path(__file__).parents[2] / "examples/study"
GRPO = '"grpo": {"name": "grpo"}'
REFUSED = [
    (("--tasks", "nope:3"), "no task nope:3; known, with their lengths: running_sums:2 and longer"),
    (("--tasks", "sorting:6,addition_chain:11"), "addition_chain:1 to 10"),
    (("--tasks", "brackets:1"), "brackets:4 and longer"),
    (("--tasks", "sorting"), "'sorting' is not TASK:LENGTH"),
    (("--tasks", "sorting:-6"), "'sorting:-6' is not TASK:LENGTH"),
    (("--estimators", f'{{{GRPO}, "mine": {{"name": "nope"}}}}'), "'mine': unknown estimator 'nope'"),
    (
        ("--estimators", f'{{{GRPO}, "mine": {{"name": "dgpo", "tauu": 1}}}}'),
        "'mine': Value error, unknown setting 'tauu'",
    ),
    (("--estimators", f'{{{GRPO}, "mine": {{"name": "gae"}}}}'), "'mine': the study has no extra.values"),
    (("--estimators", f'{{{GRPO}, "mine": 3}}'), "'mine': cannot make an estimator of int"),
    (("--estimators", '{"mine": {"name": "dapo"}}'), "'grpo' is missing"),
    (("--estimators", "{grpo}"), "argument --estimators: not JSON"),
    (("--settings", '["steps"]'), "argument --settings: expected a JSON object"),
    (("--settings", "{steps: 3}"), "argument --settings: not JSON"),
    (("--settings", '{"stepz": 3}'), "argument --settings: unknown: stepz; known: steps, prompts"),
    (("--settings", '{"steps": 0}'), "argument --settings: steps: Input should be greater than 0"),
    (("--settings", '{"width": 30}'), "width: Input should be a multiple of 4"),
    (("--device", "nowhere"), "torch has no 'nowhere' here"),
    (("--time-limit", "0"), "expected seconds above 0, not '0'"),
    (("--seeds", "-1"), "expected a whole number above 0, not '-1'"),
]


@pytest.mark.parametrize(("arguments", "reason"), REFUSED)
def test_what_cannot_run_is_refused_with_the_reason(arguments, reason, capsys):
    with pytest.raises(SystemExit) as stopped:
        flags.parse("", [f"{arguments[0]}={arguments[1]}"])
    assert stopped.value.code == 2
    assert reason in capsys.readouterr().err


def test_tasks_replace_those_of_the_plan():
    own, plan = flags.parse(
        "", ["--tasks", "sorting:6,brackets:8", "--tasks", "sorting:6", "--tasks", "running_sums:3"]
    )
    assert plan.cells == (("sorting", 6), ("brackets", 8), ("running_sums", 3))
    assert plan.settings == PLANS["reduced"].settings
    assert own.output == Path("runs") / "study-reduced"


def test_settings_replace_those_that_they_name():
    _, plan = flags.parse("", ["--plan", "smoke", "--settings", '{"steps": 9, "learning_rate": 1}'])
    assert (plan.settings.steps, plan.settings.learning_rate) == (9, 1.0)
    assert plan.settings.width == PLANS["smoke"].settings.width


def test_the_usual_estimators_can_be_named():
    _, plan = flags.parse("", ["--estimators", f'{{{GRPO}, "mine": {{"name": "entropy_only"}}}}'])
    assert list(plan.estimators) == ["grpo", "mine"]


@pytest.mark.parametrize("task", tasks.TASKS)
def test_the_lengths_that_are_let_through_can_be_made_and_held_out(task):
    kind = tasks.TASKS[task]
    for length in (kind.shortest, kind.longest or 30):
        tasks.check(task, length)
        for held_out in (True, False):
            found = tasks.problems(task, length, 40, "lengths", held_out=held_out)
            assert len({prompt for prompt, _ in found}) >= 5
            assert all(len(answer) < tasks.answer_tokens(task, length) for _, answer in found)


def test_a_system_without_affinity_counts_its_cores(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert threads.count_threads() == 3
    assert flags.parse("", [])[0].workers == 3


def test_the_command_starts_without_what_other_systems_lack():
    """As on Windows: no affinity, no fcntl, no resource, no EX_TEMPFAIL."""
    code = """if True:
    import os, runpy, sys, warnings
    warnings.simplefilter("ignore")  # of filelock, which has no other lock on a Linux without fcntl
    for name in ("sched_getaffinity", "EX_TEMPFAIL"):
        delattr(os, name)
    sys.modules |= dict.fromkeys(("fcntl", "resource"))
    sys.argv = ["run.py", "--help"]
    runpy.run_path("run.py", run_name="__main__")
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=STUDY
    )
    assert done.returncode == 0, done.stderr
    assert "--tasks" in done.stdout
