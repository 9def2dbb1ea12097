"""What is recorded is what is read: every float32 exactly, from every library; what does not fit is refused."""

import json

import numpy as np
import pytest

import credit
from credit import lens
from credit.fields import map_arrays

N, T = 4, 6


@pytest.fixture
def rollouts():
    rng = np.random.default_rng(0)
    lengths = np.array([6, 3, 4, 1])
    floats = {name: rng.random((N, T)).astype(np.float32) for name in ("deviation", "normalized_entropy")} | {
        name: -rng.exponential(size=(N, T)).astype(np.float32)
        for name in ("log_probs", "reference_log_probs")
    }
    return credit.Rollouts(
        np.array([1, 0, 0.25, 0], np.float32),
        np.array([0, 0, 2, 2]),
        np.arange(T) < lengths[:, None],
        **floats,
    )


def pieces(rollouts):
    return [[f"<{t}>" for t in range(int(n))] for n in np.asarray(rollouts.mask).sum(axis=1)]


def write(path, rollouts, estimator, tokens=None, **more):
    result = estimator(rollouts)
    lens.record(
        path, tokens=tokens or pieces(rollouts), rollouts=rollouts, result=result, estimator=estimator, **more
    )
    return result


def test_every_number_comes_back(library, rollouts, tmp_path):
    given = map_arrays(library.asarray, rollouts)
    estimator = credit.DGPO(tau=0.1)
    path = tmp_path / "made" / "samples.jsonl"
    result = write(path, given, estimator, prompts=["a", "b", "c", "d"], step=7)
    lines = list(lens.read(path))
    assert [line.row for line in lines] == [0, 1, 2, 3]
    for row, line in enumerate(lines):
        length = len(line.tokens)
        assert (line.step, line.group, line.prompt) == (7, rollouts.groups[row], "abcd"[row])
        assert line.reward == rollouts.rewards[row]
        assert credit.parse(line.estimator) == estimator
        for name in ("mask", "log_probs", "reference_log_probs", "deviation", "normalized_entropy"):
            expected = getattr(rollouts, name)[row, :length]
            np.testing.assert_array_equal(np.array(getattr(line, name), expected.dtype), expected)
        for name in ("weights", "advantages"):
            expected = library.numpy(getattr(result, name))[row, :length]
            np.testing.assert_array_equal(np.array(getattr(line, name), np.float32), expected)
        np.testing.assert_allclose(
            line.advantage * np.array(line.weights), np.array(line.advantages), rtol=1e-6, atol=1e-9
        )


def test_records_are_appended(rollouts, tmp_path):
    path = tmp_path / "samples.jsonl"
    write(path, rollouts, credit.DGPO(), step=1)
    write(path, rollouts, credit.GRPO(), step=2)
    lines = list(lens.read(path))
    assert [line.step for line in lines] == [1] * N + [2] * N
    assert {line.estimator["name"] for line in lines[N:]} == {"grpo"}


def test_what_was_not_computed_is_none_and_what_is_not_finite_too(rollouts, tmp_path):
    rollouts = rollouts._replace(log_probs=None, rewards=np.array([1, 0, np.nan, 0], np.float32))
    rollouts.deviation[0, 1] = np.inf
    path = tmp_path / "samples.jsonl"
    write(path, rollouts, credit.GRPO())
    first, _, third, _ = lens.read(path)
    assert first.log_probs is None
    assert first.deviation[:2] == [pytest.approx(float(rollouts.deviation[0, 0])), None]
    assert third.reward is None
    assert not third.valid
    assert third.weights == [0, 0, 0, 0]


def test_several_rewards_a_response(rollouts, tmp_path):
    path = tmp_path / "samples.jsonl"
    write(path, rollouts._replace(rewards=np.eye(4, 2)), credit.GDPO())
    assert [line.reward for line in lens.read(path)] == [[1, 0], [0, 1], [0, 0], [0, 0]]


def test_scores_are_written_where_they_follow_from_nothing_else(rollouts, tmp_path):
    class Surprise(credit.Redistributing):
        name: str = "surprise"

        def score(self, rollouts):
            return -rollouts.log_probs

    for estimator, expected in (
        (credit.DGPO(), None),
        (credit.GRPO(), None),
        (Surprise(), -rollouts.log_probs),
    ):
        path = tmp_path / f"{estimator.name}.jsonl"
        write(path, rollouts, estimator)
        scores = next(lens.read(path)).scores
        assert scores is None if expected is None else np.array_equal(np.float32(scores), expected[0])


def test_an_infinite_setting_comes_back(rollouts, tmp_path):
    path = tmp_path / "samples.jsonl"
    write(path, rollouts, credit.DGPO(tau=float("inf")))
    assert credit.parse(next(lens.read(path)).estimator) == credit.DGPO(tau=float("inf"))


def test_a_schedule_comes_with_its_progress(rollouts, tmp_path):
    estimator = credit.DGPO(tau={"start": 1.0, "end": 0.1})
    path = tmp_path / "samples.jsonl"
    write(path, rollouts._replace(progress=np.array(0.25, np.float32)), estimator)
    line = next(lens.read(path))
    assert line.progress == 0.25
    assert credit.parse(line.estimator) == estimator


def test_texts_of_any_kind_come_back(rollouts, tmp_path):
    hostile = ["</script>", "\u2028\r\n", '"\\', "\x00", "🙂", "\ud800"]
    path = tmp_path / "samples.jsonl"
    write(path, rollouts, credit.GRPO(), tokens=[hostile] * N)
    assert next(lens.read(path)).tokens == [*hostile[:5], "?"]


WRONG = {
    "rows": (lambda t: t[:3], "tokens has 3 entries; expected 4, the mask's rows"),
    "short": (lambda t: [t[0][:5], *t[1:]], r"tokens\[0\] has 5 pieces; expected 6 to 6, .*in column 5"),
    "long": (lambda t: [*t[:3], ["x"] * 7], r"tokens\[3\] has 7 pieces; expected 1 to 6"),
    "text": (lambda t: ["abcdef", *t[1:]], r"tokens\[0\] must be a list of strings; .*text_pieces"),
    "ids": (lambda t: [[1, 2, 3, 4, 5, 6], *t[1:]], r"tokens\[0\] must be a list of strings"),
}


@pytest.mark.parametrize("case", WRONG)
def test_pieces_that_do_not_fit_are_refused(rollouts, tmp_path, case):
    change, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "samples.jsonl", rollouts, credit.GRPO(), tokens=change(pieces(rollouts)))
    assert not list(tmp_path.iterdir())


def test_arrays_and_prompts_that_do_not_fit_are_refused(rollouts, tmp_path):
    estimator = credit.GRPO()
    result = estimator(rollouts)
    given = {"tokens": pieces(rollouts), "rollouts": rollouts, "result": result, "estimator": estimator}
    with pytest.raises(ValueError, match=r"weights has shape \(4, 5\); expected \(4, 6\)"):
        lens.record(tmp_path / "x", **given | {"result": result._replace(weights=result.weights[:, 1:])})
    with pytest.raises(ValueError, match="prompts has 1 entries; expected 4"):
        lens.record(tmp_path / "x", **given, prompts=["a"])


def test_a_bad_line_is_named(rollouts, tmp_path):
    path = tmp_path / "samples.jsonl"
    write(path, rollouts, credit.GRPO())
    good = path.read_text().splitlines()
    changed = json.loads(good[1])
    cases = {
        "{": "Invalid JSON",
        json.dumps(changed | {"format": 2}): "format: Input should be 1",
        json.dumps(changed | {"tokens": [1]}): "tokens.0: Input should be a valid string",
        json.dumps(changed | {"weights": [1.0]}): "weights has 1 entries for 3 tokens",
        json.dumps({k: v for k, v in changed.items() if k != "mask"}): "mask: Field required",
    }
    for line, message in cases.items():
        path.write_text("\n".join([good[0], "", line, ""]))
        with pytest.raises(ValueError, match=rf"samples.jsonl, line 3: .*{message}"):
            list(lens.read(path))


def test_a_last_line_that_is_still_being_written_costs_no_other(rollouts, tmp_path):
    path = tmp_path / "samples.jsonl"
    write(path, rollouts, credit.GRPO(), step=1)
    whole = path.read_text()
    path.write_text(whole[:-1])  # without its line break, but whole
    assert len(list(lens.read(path))) == N
    path.write_text(whole[:-9])
    with pytest.warns(UserWarning, match=r"samples\.jsonl, line 4 is not whole, and is left out"):
        assert [line.row for line in lens.read(path)] == [0, 1, 2]
    write(path, rollouts, credit.GRPO(), step=2)
    assert [(line.step, line.row) for line in lens.read(path)] == [(1, 0), (1, 1), (1, 2)] + [
        (2, row) for row in range(N)
    ]
    path.write_bytes(whole.encode() + '{"prompt":"é'.encode()[:-1])  # within a character
    with pytest.warns(UserWarning, match="line 5 is not whole") as caught:
        assert len(list(lens.read(path))) == N
    assert caught[0].filename == __file__
    path.write_text(whole[:-1])
    write(path, rollouts, credit.GRPO(), step=2)
    assert len(list(lens.read(path))) == 2 * N
    path.write_text('{"for')
    write(path, rollouts, credit.GRPO())
    assert len(list(lens.read(path))) == N
    path.write_text("notes of someone")  # what is no beginning of a record is kept
    write(path, rollouts, credit.GRPO())
    assert path.read_text().startswith("notes of someone\n{")


def test_lines_without_a_file_are_the_lines_of_the_file(rollouts, tmp_path):
    estimator = credit.GRPO()
    given = {"tokens": pieces(rollouts), "rollouts": rollouts, "result": estimator(rollouts)}
    lines = lens.format_records(**given, estimator=estimator, step=4)
    write(tmp_path / "samples.jsonl", rollouts, estimator, step=4)
    assert "".join(lines) == (tmp_path / "samples.jsonl").read_text("utf-8")
    assert list(lens.parse_records(lines)) == list(lens.read(tmp_path / "samples.jsonl"))
    with pytest.raises(ValueError, match="step 4, line 2: Invalid JSON"):
        list(lens.parse_records([lines[0], "{"], "step 4"))


def test_further_values_come_back_as_json_holds_them(library, rollouts, tmp_path):
    calls = [{"name": "add", "arguments": [1, {"deep": np.float32(0.5)}]}, None, "\ud800", True]
    numbers = np.array([1.5, np.nan, np.inf, 2], np.float32)
    extra = {"answer": ("a", 1, 2.5, None), "calls": calls, "score": library.asarray(numbers)}
    path = tmp_path / "samples.jsonl"
    write(path, rollouts, credit.GRPO(), extra=extra | {"pair": np.arange(8).reshape(4, 2)})
    lines = list(lens.read(path))
    assert [line.answer for line in lines] == ["a", 1, 2.5, None]
    assert [line.calls for line in lines] == [
        {"name": "add", "arguments": [1, {"deep": 0.5}]},
        None,
        "?",
        True,
    ]
    assert [line.score for line in lines] == [1.5, None, None, 2]
    assert lines[3].model_extra == {"answer": None, "calls": True, "score": 2, "pair": [6, 7]}


REFUSED = {
    "name": ({"reward": [1, 2, 3, 4]}, r"extra\['reward'\] is a field of every completion; .*my_reward"),
    "length": ({"uid": [1, 2, 3]}, r"extra\['uid'\] has 3 values; expected 4, one per completion"),
    "text": ({"uid": "abcd"}, r"extra\['uid'\] is a str; expected a list of 4 values"),
    "value": (
        {"at": [1, {"x": [{1}]}, 3, 4]},
        r"extra\['at'\]\[1\]\['x'\]\[0\] is a set; expected what JSON",
    ),
    "key": ({"at": [{1: 2}, 2, 3, 4]}, r"extra\['at'\]\[0\] has the key 1; expected keys that are text"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_further_values_that_do_not_fit_are_refused(rollouts, tmp_path, case):
    extra, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "samples.jsonl", rollouts, credit.GRPO(), extra=extra)
    assert not list(tmp_path.iterdir())


def test_fields_of_another_writer_are_kept(rollouts, tmp_path):
    path = tmp_path / "samples.jsonl"
    write(path, rollouts, credit.GRPO())
    line = json.loads(path.read_text().splitlines()[0])
    path.write_text(json.dumps(line | {"copy": {"nested": [1]}, "model_config": 2}))
    assert next(lens.read(path)).model_extra == {"copy": {"nested": [1]}, "model_config": 2}


@pytest.mark.parametrize("missing", [np.nan, np.inf])
def test_the_advantage_of_a_response_survives_missing_weights(rollouts, tmp_path, missing):
    path = tmp_path / "samples.jsonl"
    estimator = credit.DGPO(tau=0.1)
    result = estimator(rollouts)
    expected = next(lens.parse_records(format_of(rollouts, result, estimator))).advantage
    result.weights[0, 2:] = result.advantages[0, 2:] = missing
    result.weights[1] = result.advantages[1] = missing
    lens.append_records(path, format_of(rollouts, result, estimator))
    first, second, third, _ = lens.read(path)
    assert first.weights[2:] == first.advantages[2:] == [None] * 4
    assert first.advantage == pytest.approx(expected, rel=1e-6)
    assert second.advantage is None
    assert third.advantage is not None


def format_of(rollouts, result, estimator):
    return lens.format_records(tokens=pieces(rollouts), rollouts=rollouts, result=result, estimator=estimator)
