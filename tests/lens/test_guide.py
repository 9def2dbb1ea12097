"""What docs/lens.md tells its readers to run, runs."""

import re
import shlex
from pathlib import Path

import pytest
from lens_samples import rollouts, write

import credit
from credit import lens
from credit.lens.__main__ import main, make_parser

GUIDE = (Path(__file__).parents[2] / "docs/lens.md").read_text("utf-8")
MODULE = "python -m credit.lens "


def list_commands():
    """The arguments of each command line of the guide."""
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line.partition(MODULE)[2]) for line in lines]


@pytest.mark.parametrize("arguments", list_commands(), ids=" ".join)
def test_a_command_runs(arguments, tmp_path, monkeypatch, capsys):
    if "model" in make_parser().parse_args(arguments):
        return  # it needs the demonstration's models; tests/lens/test_sampling.py runs such commands
    if "--terminal" in arguments:
        pytest.importorskip("rich")
    monkeypatch.chdir(tmp_path)
    for name in ("samples.jsonl", "dgpo/credit.jsonl", "grpo/credit.jsonl"):
        for step in (100, 200, 300):
            write(tmp_path / name, rollouts(step), credit.DGPO(tau=0.1), step=step)
    assert main(arguments) == 0
    assert "--terminal" in arguments or (tmp_path / "lens.html").exists()


def test_completions_of_an_own_loop_are_recorded(tmp_path, monkeypatch):
    class Letters:
        def decode(self, ids, **options):
            return "".join(chr(97 + i) for i in ids)

    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    given, estimator = rollouts(), credit.DGPO(tau=0.1)
    rows, width = given.mask.shape
    names = {
        "tokenizer": Letters(),
        "ids": [[t % 26 for t in range(width)]] * rows,
        "rollouts": given,
        "result": estimator(given),
        "estimator": estimator,
        "prompts": ["?"] * rows,
        "step": 3,
        "answers": list(range(rows)),
    }
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/lens.md", "exec"), names)
    lines = list(lens.read("samples.jsonl"))
    assert [line.answer for line in lines] == list(range(rows))
    assert lines[0].tokens[:3] == ["a", "b", "c"]
