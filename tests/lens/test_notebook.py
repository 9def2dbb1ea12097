"""What a notebook is given: all completions, or as many whole groups as its output may hold."""

import json
import re
from itertools import groupby

import numpy as np
import pytest

import credit
from credit import lens
from credit.lens import notebook, subset

STEPS, GROUPS, SIZE, T = 6, 4, 2, 150
N = GROUPS * SIZE


def record_step(path, step, estimators=None, rng=None):
    """Completions of random words, which no compression makes small, under each of the estimators."""
    rng = rng or np.random.default_rng(step)
    statistics = rng.random((2, N, T)).astype("f4")
    given = credit.Rollouts(
        rng.integers(0, 2, N).astype("f4"),
        np.arange(N) // SIZE,
        np.ones((N, T), bool),
        deviation=statistics[0],
        normalized_entropy=statistics[1],
    )
    tokens = [[f" {word}" for word in row] for row in rng.integers(0, 10**6, (N, T))]
    for estimator in estimators or (credit.DGPO(tau=0.1), credit.GRPO()):
        result = estimator(given)
        lens.record(path, tokens=tokens, rollouts=given, result=result, estimator=estimator, step=step)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Two estimators on the same completions of each step."""
    path = tmp_path_factory.mktemp("records") / "my credit.jsonl"
    for step in range(STEPS):
        record_step(path, step)
    return path


def about(shown):
    return json.loads(re.search(r'id="about">(.*?)</script>', shown.html).group(1))


def limit(path, share):
    """A limit, in MB, that leaves room for about that share of the completions."""
    least = lens.show(list(lens.read(path))[:1]).size
    return (least + share * (lens.show(path, max_mb=None).size - least)) / 1e6


def test_what_fits_is_shown_whole(path):
    for most in (2.0, None, lens.show(path).size / 1e6):
        shown = about(lens.show(path, max_mb=most))
        assert len(shown["row"]) == 2 * STEPS * N
        assert shown["note"] is None


def test_a_part_has_whole_groups_of_all_steps_on_both_sides(path):
    most = limit(path, 0.5)
    shown = lens.show(path, max_mb=most)
    assert shown.size <= most * 1e6
    found = about(shown)
    rows = list(zip(found["step"], found["estimator"], found["group"], found["row"], strict=True))
    assert rows == sorted(rows)  # in the order of the file
    groups = [key for key, _ in groupby(row[:3] for row in rows)]
    assert len(rows) == SIZE * len(groups)
    one, other = ({(step, group) for step, side, group in groups if side == each} for each in (0, 1))
    assert one == other
    assert {step for step, _ in one} == set(range(STEPS))
    assert len(one) > STEPS


def test_the_note_says_what_is_shown_and_how_to_see_the_rest(path):
    shown = lens.show(path, max_mb=limit(path, 0.5))
    found = about(shown)
    note = found["note"]
    assert f"Shown: {len(found['row'])} of {2 * STEPS * N} completions, whole groups" in note
    size = lens.show(path, max_mb=None).size / 1e6
    assert f"an output of {size:.1f} MB, more than max_mb=" in note
    assert f"show(..., max_mb=None), or write a page of its own: python -m credit.lens '{path}' -o" in note


def test_few_groups_are_spread_over_the_steps(path):
    steps = sorted(set(about(lens.show(path, max_mb=limit(path, 0.12)))["step"]))
    assert 1 < len(steps) < STEPS
    assert max(np.diff([*steps, STEPS + steps[0]])) <= np.ceil(STEPS / len(steps))


def test_of_a_group_that_is_too_large_a_part_is_shown_on_both_sides(path):
    pairs = [line for line in lens.read(path) if line.step == 0 and line.row in (0, 1)]
    sizes = [lens.show(lines).size for lines in (pairs, pairs[::SIZE])]  # a group, and a row of it
    found = about(lens.show(path, max_mb=(sum(sizes) / 2 + 1000) / 1e6))
    assert "a part of one group" in found["note"]
    assert (found["row"][0], found["estimator"]) == (found["row"][1], [0, 1])


def test_there_is_a_completion_even_if_it_is_too_large(path):
    found = about(lens.show(path, max_mb=0.0001))
    assert len(found["row"]) == 1
    assert "Shown: 1 of 96 completions, the shortest one, although it alone is too large" in found["note"]
    found = about(lens.show(list(lens.read(path))[:1], max_mb=0.0001))
    assert "Shown: 1 of 1 completions" in found["note"]
    assert found["note"].endswith("To see all, call show(..., max_mb=None)")  # no file holds them


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.03, 0.01, -1])
def test_few_pages_are_made(path, share, monkeypatch):
    made = []
    monkeypatch.setattr(notebook, "page", lambda *given: made.append(lens.page(*given)) or made[-1])
    lens.show(path, max_mb=limit(path, share))
    assert len(made) <= 2 * subset.ATTEMPTS + 3


def test_completions_that_can_be_read_once_are_enough(path):
    most = limit(path, 0.5)
    kept = about(lens.show(path, max_mb=most))
    for source in (lens.read(path), {"mine": lens.read(path)}):
        assert about(lens.show(source, max_mb=most))["row"] == kept["row"]


def test_runs_are_the_sides_of_a_comparison(tmp_path):
    paths = [tmp_path / name / "credit.jsonl" for name in ("dgpo", "grpo")]
    for path, estimator in zip(paths, (credit.DGPO(tau=0.1), credit.GRPO()), strict=True):
        for step in range(STEPS):
            record_step(path, step, [estimator])
    least = lens.show(list(lens.read(paths[0]))[:1]).size
    whole = lens.show(*paths, max_mb=None).size
    found = about(lens.show(*paths, max_mb=(least + whole) / 2e6))
    rows = list(zip(found["run"], found["step"], found["row"], strict=True))
    one, other = ({row[1:] for row in rows if row[0] == run} for run in (0, 1))
    assert one == other
    assert 0 < len(rows) < 2 * STEPS * N


def entry(place, batch, group):
    return subset.Entry(place, ("run", "grpo"), (batch, 0), group, row=place, cost=1)


def test_every_step_gets_a_group_before_another_gets_two():
    sizes = {1: 5, 2: 1, 3: 3}
    units = [[entry(10 * step + group, step, group)] for step, size in sizes.items() for group in range(size)]

    def places(count):
        return [unit[0].place for unit in subset.pick(units, count)]

    assert places(3) == [10, 20, 30]
    assert places(5) == [10, 20, 30, 11, 31]
    assert sorted(places(9)) == [10, 11, 12, 13, 14, 20, 30, 31, 32]


def test_a_step_recorded_twice_has_two_batches(path, tmp_path):
    twice = tmp_path / "twice.jsonl"
    for seed in (0, 1):
        record_step(twice, 7, rng=np.random.default_rng(seed))
    entries = []
    list(subset.observe({"a": lens.read(twice)}, entries)["a"])
    units = subset.join(entries, lambda each: each.group)
    assert [len(unit) for unit in units] == [2 * SIZE] * (2 * GROUPS)
    assert {unit[0].batch for unit in units} == {(7, 0), (7, 1)}
