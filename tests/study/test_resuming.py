"""Units in pieces: what a time limit leaves, what goes on from there, and what cannot."""

import json
from dataclasses import replace

import pytest
from estimator_study import journal, pool
from estimator_study.journal import Journal
from estimator_study.plan import PLANS
from estimator_study.work import work
from filelock import FileLock, Timeout


def never():
    return False


def always():
    return True


def ignore(steps):
    pass


def records(folder, unit):
    return journal.read(folder / f"{unit.name}.jsonl")


@pytest.fixture
def unit(make_unit):
    """Over in a second: one right answer of a seed is warm-up enough."""
    return make_unit(seeds=(0, 1), settings={"warm_up_accuracy": 0.005, "steps": 3})


def test_a_stopped_unit_goes_on_to_the_same_numbers(make_unit, tmp_path):
    unit = make_unit()
    over = []
    work(unit, tmp_path / "whole", "cpu", never, over.append)
    assert sum(over) == len(unit.runs) * unit.settings.steps
    over.clear()
    work(unit, tmp_path / "parts", "cpu", lambda: len(over) == 2, over.append)
    with (tmp_path / "parts" / f"{unit.name}.jsonl").open("a") as file:
        file.write('{"a line that was cut')
    assert not journal.standing(tmp_path / "parts", unit).finished
    work(unit, tmp_path / "parts", "cpu", never, over.append)
    assert records(tmp_path / "parts", unit) == records(tmp_path / "whole", unit)
    assert not list((tmp_path / "parts").glob("*.pt"))


def test_pieces_of_one_step_come_to_an_end_with_the_same_numbers(unit, tmp_path):
    """No limit is too short: each piece takes a step, of the warm-up too, and keeps it."""
    work(unit, tmp_path / "whole", "cpu", never, ignore)
    warm_up = max(
        record["warm_up"]["step"] for record in records(tmp_path / "whole", unit) if "warm_up" in record
    )
    pieces = 0
    while not journal.standing(tmp_path / "parts", unit).finished:
        work(unit, tmp_path / "parts", "cpu", always, ignore)
        pieces += 1
        assert pieces <= warm_up + unit.settings.steps + 1
    assert pieces > warm_up > 0
    assert "failed" not in str(records(tmp_path / "parts", unit))
    assert records(tmp_path / "parts", unit) == records(tmp_path / "whole", unit)


def test_a_warm_up_is_saved_as_it_goes(unit, tmp_path, monkeypatch):
    """A process that is killed, rather than stopped, loses a few seconds of it."""
    monkeypatch.setattr("estimator_study.work.SAVE_EVERY", 0.0)
    saved = []
    keep = Journal.save
    monkeypatch.setattr(Journal, "save", lambda self, whole: (saved.append(set(whole)), keep(self, whole)))
    work(unit, tmp_path, "cpu", never, ignore)
    assert saved.count({"warm-up"}) > 1
    assert saved.count({"runs"}) >= unit.settings.steps


def test_a_limit_that_is_over_at_once_still_lets_one_unit_step(unit, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "estimator_study.work.work", lambda unit, folder, device, stop, done: asked.append(stop())
    )
    monkeypatch.setattr(pool, "_steps", type("Queue", (), {"put": ignore}))
    for least in (0.0, 5.0, None):
        pool._work(unit, tmp_path, "cpu", 0.0, least)
    assert asked == [True, False]


@pytest.mark.parametrize("line", ['{"seed": 0, garbage', '{"seed": 0}', "[]", "3", "\udcff"])
def test_a_spoiled_line_is_named_with_the_way_on(unit, tmp_path, line):
    path = tmp_path / f"{unit.name}.jsonl"
    whole = [json.dumps(record) for record in (unit.description(), {"seed": 0, "estimator": "grpo"})]
    lines = "\n".join([*whole, line, '{"finished": true}', ""])
    path.write_bytes(lines.encode(errors="surrogateescape"))
    way_on = rf"{unit.name}\.jsonl, line 3 is no record .*To compute this unit anew, delete \S+{unit.name}\.jsonl and give"
    for read in (lambda: journal.read(path), lambda: journal.standing(tmp_path, unit)):
        with pytest.raises(journal.Unusable, match=way_on):
            read()


def test_the_way_on_from_a_spoiled_line_names_the_checkpoint_too(unit, tmp_path):
    work(unit, tmp_path, "cpu", always, ignore)
    path = tmp_path / f"{unit.name}.jsonl"
    path.write_text("spoiled\n")
    with pytest.raises(
        journal.Unusable, match=rf"delete \S+{unit.name}\.jsonl and \S+{unit.name}\.pt and give"
    ):
        work(unit, tmp_path, "cpu", never, ignore)
    path.unlink()
    (tmp_path / f"{unit.name}.pt").unlink()
    work(unit, tmp_path, "cpu", never, ignore)
    assert journal.standing(tmp_path, unit).finished


def test_a_spoiled_checkpoint_fails_no_run(unit, tmp_path):
    work(unit, tmp_path, "cpu", always, ignore)
    (tmp_path / f"{unit.name}.pt").write_bytes(b"spoiled")
    with pytest.raises(journal.Unusable, match=rf"{unit.name}\.pt is no checkpoint\. To compute"):
        work(unit, tmp_path, "cpu", never, ignore)
    assert not journal.standing(tmp_path, unit).failures


def test_other_settings_in_the_same_folder_are_refused(make_unit, tmp_path):
    unit = make_unit()
    (tmp_path / f"{unit.name}.jsonl").write_text(json.dumps(unit.description()) + "\n")
    other = replace(unit, settings=replace(unit.settings, learning_rate=1.0))
    with pytest.raises(ValueError, match="other settings; give another --output"):
        work(other, tmp_path, "cpu", never, ignore)


def test_other_tasks_join_a_folder_and_other_estimators_do_not(make_unit, tmp_path):
    unit, plan = make_unit(), PLANS["smoke"]
    (tmp_path / "sorting-6-0.jsonl").write_text(json.dumps(unit.description()) + "\n")
    (tmp_path / "sorting-6-1.jsonl").write_text("")
    journal.refuse_mixture(tmp_path, plan.estimators, plan.settings)
    with pytest.raises(
        journal.Unusable, match="sorting-6-0.jsonl was written with other estimators or settings"
    ):
        journal.refuse_mixture(tmp_path, {"grpo": {"name": "grpo"}}, plan.settings)


def test_a_unit_is_locked_while_it_is_open(unit, tmp_path):
    with Journal(tmp_path, unit):
        other = FileLock(tmp_path / f"{unit.name}.lock", is_singleton=False)
        with pytest.raises(Timeout):
            other.acquire(timeout=0)
    with other.acquire(timeout=0):
        pass
