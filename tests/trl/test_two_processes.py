"""Resampling on two processes over gloo: the same rounds everywhere, whole groups on each."""

import json
from pathlib import Path

import pytest
from ranks import run

from credit import lens


@pytest.fixture(scope="module")
def ranks(model_path, tmp_path_factory):
    """What each of two processes saw, and the records of both."""
    out = tmp_path_factory.mktemp("ranks")
    run(str(Path(__file__).with_name("sample_rank.py")), 2, model_path, str(out))
    found = [json.loads((out / f"rank_{rank}.json").read_text()) for rank in (0, 1)]
    return [*found, list(lens.read(out / "run/credit.jsonl"))]


def test_every_process_fills_its_part_with_whole_live_groups(ranks):
    first, second = (rank["unbroken"] for rank in ranks[:2])
    assert first["dropped"] == second["dropped"] == [0.0] * 4
    assert max(rounds for _, _, rounds in first["steps"]) > 1
    assert first["drawn"] == second["drawn"] > 0
    for each in (first, second):
        own = sorted(each["prompts"])
        assert all(int(prompt[:-1]) % 3 == 0 for prompt in own)
        assert own[:4] == own[:1] * 4
        assert own[4:] == own[4:5] * 4
    assert sorted(first["prompts"] + second["prompts"]) == sorted(first["table"]) == sorted(second["table"])
    assert first["tokens"] == second["tokens"] == first["own_tokens"] + second["own_tokens"]


def test_a_resumed_run_takes_the_same_steps(ranks):
    for rank in ranks[:2]:
        unbroken, resumed = rank["unbroken"], rank["resumed"]
        assert resumed["steps"] == unbroken["steps"]  # the log of the first two comes with the checkpoint
        for name in ("prompts", "advantages", "drawn"):
            assert resumed[name] == unbroken[name]


def test_one_process_says_what_trains(ranks):
    first, second, _ = ranks
    (line,) = first["unbroken"]["said"]
    assert "checked: tau=0.01 (default 0.5)" in line
    assert second["unbroken"]["said"] == []


def test_one_process_records_the_groups_of_both(ranks):
    first, _, lines = ranks
    assert [line.step for line in lines] == [step for step in (1, 2, 3, 4, 3, 4) for _ in range(12)]
    assert lines[24:48] == lines[48:]  # steps 3 and 4, and both again
    assert [line.prompt for line in lines[-12:]] == first["resumed"]["table"][:12]
    for line in lines:
        assert line.valid
        assert line.number == int(line.prompt[:-1])
        assert line.mask == [1] * len(line.tokens)
        assert sum(line.weights) == pytest.approx(len(line.tokens), rel=1e-4)
