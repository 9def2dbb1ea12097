"""python -m credit.lens and the view in a terminal."""

import io
import json
import re

import numpy as np
import pytest

import credit
from credit import lens
from credit.lens.__main__ import main

ESCAPES = ["\x1b[2J", "\x07", "a\tb", "", "\u202e", "é🙂", "\n", "ok"]


@pytest.fixture
def samples(tmp_path):
    rng = np.random.default_rng(0)
    shape = (4, len(ESCAPES))
    given = credit.Rollouts(
        np.array([1, 0, 1, 0], np.float32),
        np.array([0, 0, 2, 2]),
        np.arange(shape[1]) < np.array([[8], [8], [5], [1]]),
        deviation=rng.random(shape).astype(np.float32),
        normalized_entropy=rng.random(shape).astype(np.float32),
    )
    estimator = credit.DGPO(tau=0.05)
    path = tmp_path / "samples.jsonl"
    lens.record(
        path, tokens=[ESCAPES] * 4, rollouts=given, result=estimator(given), estimator=estimator, step=2
    )
    return path


def test_a_page_is_written(samples, tmp_path, capsys):
    output = tmp_path / "lens.html"
    assert main([str(samples), "-o", str(output)]) == 0
    assert output.read_text("utf-8").startswith("<!doctype html>")
    assert f"{output}: 0.1 MB" in capsys.readouterr().out


def test_errors_go_to_the_user_without_a_traceback(samples, tmp_path, capsys):
    broken = tmp_path / "broken.jsonl"
    broken.write_text(samples.read_text() + "{}\n")
    for path, message in (
        (broken, "broken.jsonl, line 5: format: Field required"),
        (tmp_path / "no", "No such file"),
    ):
        assert main([str(path), "-o", str(tmp_path / "x.html")]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize(
    "flags",
    [[], ["--model", "m"], ["--model", "m", "--reference", "r"]],
    ids=str,
)
def test_flags_of_which_one_is_missing_are_refused(flags, capsys):
    with pytest.raises(SystemExit):
        main(flags)
    assert "either files of samples, or --model, --reference and --prompts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "m"], "--model is for completions of two models, and files of samples are given"),
        (["--estimator", "grpo", "--batch-size", "2"], "--estimator, --batch-size is for completions of two"),
        (["--estimator", "grpo"], "are given; --also shows another estimator"),
        (["--count", "-1"], "-1 is no number of completions; expected 1 or more"),
        (["--settings", "[1]"], '[1] is no object; expected JSON such as {"tau": 0.1}'),
        (["--settings", "{"], "argument --settings: {: Expecting property name"),
    ],
    ids=str,
)
def test_flags_that_files_of_samples_have_no_use_for_are_refused(samples, flags, message, capsys):
    with pytest.raises(SystemExit):
        main([str(samples), *flags])
    assert message in capsys.readouterr().err


def test_a_file_without_completions_is_refused(tmp_path, capsys):
    pytest.importorskip("rich")
    path = tmp_path / "empty.jsonl"
    path.write_text("")
    for flags in (["--terminal"], ["-o", str(tmp_path / "x.html")]):
        assert main([str(path), *flags]) == 1
        assert "empty.jsonl holds no completions" in capsys.readouterr().err


@pytest.fixture
def two_runs(samples, tmp_path):
    """Two files of the same name; the second has steps 2 and 5, the first step 2."""
    text = samples.read_text("utf-8")
    paths = [tmp_path / name / "credit.jsonl" for name in "ab"]
    for path, content in zip(paths, (text, text + text.replace('"step": 2', '"step": 5')), strict=True):
        path.parent.mkdir()
        path.write_text(content, "utf-8")
    return [str(path) for path in paths]


def about(page):
    return json.loads(re.search(r'id="about">(.*?)</script>', page.read_text("utf-8")).group(1))


def test_several_files_make_one_page(two_runs, tmp_path):
    output = tmp_path / "lens.html"
    assert main([*two_runs, "-o", str(output), "--count", "3"]) == 0
    assert about(output)["runs"] == ["a/credit.jsonl", "b/credit.jsonl"]
    assert about(output)["run"] == [0] * 3 + [1] * 3  # the count is that of each file


def test_only_the_steps_asked_for_are_shown(two_runs, tmp_path, capsys):
    output = tmp_path / "lens.html"
    assert main([*two_runs, "-o", str(output), "--steps", "5"]) == 0
    assert about(output)["run"] == [1] * 4
    assert main([*two_runs, "-o", str(output), "--steps", "2", "5"]) == 0
    assert about(output)["step"] == [2] * 8 + [5] * 4
    assert main([*two_runs, "-o", str(output), "--steps", "2", "7"]) == 1
    assert "step 7 is in no record; expected some of: 2, 5" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--model", "m", "--reference", "r", "--prompts", "p", "--steps", "2"])
    assert "--steps selects from files of samples" in capsys.readouterr().err


def test_several_files_follow_each_other_in_the_terminal(two_runs, capsys):
    pytest.importorskip("rich")
    assert main([*two_runs, "--terminal", "--steps", "2"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("a/credit.jsonl") < shown.index("4 completions") < shown.index("b/credit.jsonl")
    assert shown.count("4 completions") == 2


def terminal(samples, **settings):
    rich = pytest.importorskip("rich.console")
    from credit.lens.terminal import show_in_terminal

    out = io.StringIO()
    show_in_terminal(lens.read(samples), rich.Console(file=out, width=120, highlight=False, **settings))
    return out.getvalue()


def test_the_terminal_shows_tokens_and_numbers(samples):
    text = terminal(samples)
    lines = list(lens.read(samples))
    assert "step 2 group 0 row 0   r 1   A +0.707" in text
    assert "␛[2J␇a⇥b◌\ufffdé🙂⏎\nok" in text
    assert "4 completions" in text
    w, mask = (np.array([getattr(line, name) for line in lines], float) for name in ("weights", "mask"))
    assert f"weight_std {np.std(w[mask != 0]):.4g}" in text.replace("\n", " ")


def test_a_completion_cannot_command_the_terminal(samples):
    assert "\x1b" not in terminal(samples)
    assert "\x07" not in terminal(samples)
    assert "\x1b[2J" not in terminal(samples, force_terminal=True, color_system="truecolor")


def test_the_heavier_token_is_orange_in_the_terminal(samples):
    from credit.lens.terminal import color_tokens

    line = next(lens.read(samples))
    spans = color_tokens(line.model_copy(update={"weights": [4.0, 0.25, 1, 1, 1, 1, 1, 1]})).spans
    (more, less, same) = (spans[i].style.rsplit("#")[-1] for i in range(3))
    assert int(more[:2], 16) > int(more[4:], 16)
    assert int(less[:2], 16) < int(less[4:], 16)
    assert len({same[:2], same[2:4], same[4:]}) == 1


def lacking(path):
    """The first completion gets a missing weight, the second is invalid, the third misses a deviation."""
    first, second, third, fourth = lens.read(path)
    lines = [
        first.model_copy(update={"weights": [None, *first.weights[1:]], "advantage": None}),
        second.model_copy(update={"valid": False, "reward": [None, 1.0]}),
        third.model_copy(update={"deviation": [None, *third.deviation[1:]]}),
        fourth,
    ]
    path.write_text("".join(line.model_dump_json() + "\n" for line in lines), "utf-8")
    return lines


def test_missing_numbers_are_marked_and_counted(samples):
    _, _, third, fourth = lacking(samples)
    text = " ".join(terminal(samples).split())
    assert "row 0 r 1 A ? std w ? 1 of 8 weights missing (reversed)" in text
    assert "row 1 r ? 1 A ? std w ? invalid: took no part" in text
    assert "4 completions (left out: 1 invalid, 1 with missing weights)" in text
    chosen = [w for line in (third, fourth) for w, m in zip(line.weights, line.mask, strict=True) if m]
    assert f"weight_std {np.std(chosen):.4g}" in text
    assert f"deviation_mean {fourth.deviation[0]:.4g}" in text  # which has one token
    assert text.endswith("(deviation of 1)")


def test_a_missing_weight_is_not_painted_as_a_weight_of_one_or_none(samples):
    pytest.importorskip("rich")
    from credit.lens.terminal import color_tokens, draw_weight_strip

    first, second, *_ = lacking(samples)
    assert [span.style == "reverse" for span in color_tokens(first).spans] == [True] + [False] * 7
    assert {span.style for span in color_tokens(second).spans} == {"reverse"}
    assert draw_weight_strip(first).plain.count("·") == 1
    assert draw_weight_strip(second).plain == "·" * 8


def test_a_summary_of_nothing_says_so(samples):
    lines = [line.model_copy(update={"valid": False}) for line in lens.read(samples)]
    samples.write_text("".join(line.model_dump_json() + "\n" for line in lines), "utf-8")
    assert "4 completions (left out: 4 invalid)   no weights to sum up" in terminal(samples)
    bare = dict.fromkeys(("weights", "advantages", "mask", "tokens"), []) | {"deviation": None}
    empty = lines[0].model_copy(update={"valid": True, "normalized_entropy": None, "log_probs": None, **bare})
    empty = empty.model_copy(update={"reference_log_probs": None, "turns": None, "scores": None})
    samples.write_text(empty.model_dump_json(), "utf-8")
    assert "1 completion   no weights to sum up" in terminal(samples)
    samples.write_text("")
    assert terminal(samples) == "0 completions   no weights to sum up\n"


def test_it_runs_as_a_module(samples, capfd):
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "credit.lens", str(samples), "--terminal", "--count", "1"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "1 completion " in done.stdout


def test_each_estimator_is_summed_up_by_itself_in_the_terminal(samples, capfd):
    pytest.importorskip("rich")
    assert main([str(samples), "--terminal", "--also", "grpo"]) == 0
    text = capfd.readouterr().out
    first, second = text.split("\ngrpo\n")
    assert first.startswith("dgpo(tau=0.05, kappa=1)\n")
    for part in (first, second):
        assert part.count("step 2 group") == 4
        assert "4 completions" in part
    assert "weight_std 0 " in " ".join(second.split())
