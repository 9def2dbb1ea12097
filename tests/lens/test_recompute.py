"""Another estimator on recorded completions gives what it would have given in the training."""

import json
import re

import numpy as np
import pytest
from lens_samples import N, T, rollouts, write

import credit
from credit import lens
from credit.fields import map_arrays
from credit.lens.__main__ import main

ESTIMATORS = [credit.DGPO(tau=0.05), credit.DGPO(within="turn"), credit.DAPO(), credit.GRPO()]


def single(given):
    """The same numbers in float32, as a training has them."""
    return map_arrays(lambda a: a.astype(np.float32) if a.dtype == np.float64 else a, given)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_the_credit_is_that_of_the_whole_rollouts(tmp_path, estimator):
    turns = np.cumsum(np.random.default_rng(1).random((N, T)) < 0.1, axis=1)
    given = [
        single(rollouts(seed, turns=turns, rewards=np.array([1.0, 0, np.nan, 1, 0.5, 0])))._replace(
            progress=np.float32(0.5)
        )
        for seed in (0, 1)
    ]
    path = tmp_path / "samples.jsonl"
    prompts, extra = list("abcdef"), {"answer": list(range(N))}
    for step, each in enumerate(given):
        write(path, each, credit.GRPO(), step=step, prompts=prompts, extra=extra)
    recorded = list(lens.read(path))
    found = list(lens.recompute(recorded, estimator))
    for step, each in enumerate(given):
        expected = estimator(each)
        for row in range(N):
            made, before = found[step * N + row], recorded[step * N + row]
            np.testing.assert_allclose(made.weights, expected.weights[row], rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(made.advantages, expected.advantages[row], rtol=1e-6, atol=1e-7)
            assert credit.parse(made.estimator) == estimator
            same = (
                "step",
                "row",
                "group",
                "reward",
                "valid",
                "prompt",
                "tokens",
                "deviation",
                "progress",
                "answer",
            )
            assert [getattr(made, name) for name in same] == [getattr(before, name) for name in same]


def test_rewards_of_several_functions_are_recomputed(tmp_path):
    given = single(rollouts())._replace(rewards=np.eye(N, 2, dtype=np.float32))
    path = write(tmp_path / "samples.jsonl", given, credit.GDPO())
    found = list(lens.recompute(lens.read(path), credit.GDPO()))
    expected = credit.GDPO()(given).advantages
    np.testing.assert_allclose([each.advantages for each in found], expected, rtol=1e-6, atol=1e-7)


def test_what_was_not_recorded_is_named(tmp_path, capsys):
    bare = rollouts()._replace(deviation=None, normalized_entropy=None)
    path = write(tmp_path / "samples.jsonl", bare, credit.GRPO())
    with pytest.raises(ValueError, match="dgpo needs deviation"):
        list(lens.recompute(lens.read(path), credit.DGPO()))
    assert main([str(path), "--also", "dgpo", "-o", str(tmp_path / "x.html")]) == 1
    assert "dgpo needs deviation" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()


def test_the_command_line_shows_several_estimators(tmp_path, capsys):
    path = write(tmp_path / "samples.jsonl", rollouts(), credit.DGPO(tau=0.05))
    output = tmp_path / "lens.html"
    also = ["--also", "grpo", "--also", '{"name": "dgpo", "tau": 0.5}']
    assert main([str(path), *also, "-o", str(output)]) == 0
    assert '"estimators":["dgpo(tau=0.05, kappa=1)","grpo","dgpo(tau=0.5, kappa=1)"]' in output.read_text()
    assert main([str(path), "--also", "grpo", "--count", "2", "-o", str(output)]) == 0
    advantages = re.search(r'"advantage":(\[.*?\])', output.read_text())
    whole = list(lens.recompute(lens.read(path), credit.GRPO()))  # which sees the third of the group too
    assert json.loads(advantages[1])[2:] == [each.advantage for each in whole[:2]]
    for wrong, message in (("grpos", "grpos"), ('{"name": "dgpo", "heat": 1}', "heat"), ("{", "Expecting")):
        with pytest.raises(SystemExit):
            main([str(path), "--also", wrong, "-o", str(output)])
        assert message in capsys.readouterr().err


def test_completions_without_a_token_are_recomputed(tmp_path):
    given = credit.Rollouts(np.ones(2), np.array([0, 0]), np.zeros((2, 1), bool))
    path = write(tmp_path / "samples.jsonl", given, credit.GRPO(), [[], []])
    assert [each.weights for each in lens.recompute(lens.read(path), credit.GRPO())] == [[], []]
