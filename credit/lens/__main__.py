"""Shows what an estimator does to the tokens of completions, in an HTML page or in the terminal.

    python -m credit.lens samples.jsonl -o lens.html
    python -m credit.lens dgpo/credit.jsonl grpo/credit.jsonl -o lens.html --steps 10 20
    python -m credit.lens samples.jsonl --also grpo --also '{"name": "dgpo", "tau": 0.02}' -o lens.html
    python -m credit.lens samples.jsonl --terminal
    python -m credit.lens --model M --reference R --prompts prompts.jsonl -o lens.html

The samples are JSON lines that credit.lens.record wrote. Two Hugging Face models can make them first, from
prompts: prompts.jsonl holds one object per line, such as {"prompt": "2+2=", "answer": "4"}, for which
completions are sampled; {"prompt", "completion", "reward"} has its completion scored as it is.
"""

import argparse
import json
import runpy
import sys
import tempfile
from argparse import SUPPRESS
from functools import partial
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import Any

import credit
from credit.lens.batches import recompute
from credit.lens.page import page
from credit.lens.prompts import read_prompts
from credit.lens.sampling import SamplingOptions, sample
from credit.lens.sources import Runs, load, select_steps


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        "python -m credit.lens",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("samples", nargs="*", help="files of JSON lines that credit.lens.record wrote")
    parser.add_argument("-o", "--output", default="lens.html", help="path of the page (default: lens.html)")
    parser.add_argument("--terminal", action="store_true", help="print to the terminal instead")
    parser.add_argument(
        "--count",
        type=_parse_count,
        help="show the first COUNT completions of each file and estimator, or use COUNT prompts",
    )
    parser.add_argument(
        "--also",
        type=_parse_estimator,
        action="append",
        default=[],
        metavar="ESTIMATOR",
        help="show too what this estimator makes of the completions: a name, or JSON with name and settings",
    )
    parser.add_argument("--steps", type=int, nargs="+", help="show only these steps; give the files before")
    _add_model_flags(parser)
    return parser


def _add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that are absent where they are not given, so that one without --model can be refused."""
    add = partial(parser.add_argument_group("completions of two models").add_argument, default=SUPPRESS)
    usual = SamplingOptions()
    add("--model", help="path or hub name of the policy")
    add("--reference", help="path or hub name of the reference model")
    add("--prompts", help="file of JSON lines, or a text file with one prompt per line")
    add("--reward", help="file.py:function, called as TRL calls reward functions")
    add("--estimator", help="one of: " + ", ".join(credit.names()) + " (default: dgpo)")
    add("--settings", type=_parse_settings, help="settings of the estimator, as JSON")
    add("--keep", help="append the records to this file")
    add("--generations", type=int, help=f"completions per prompt (default: {usual.generations})")
    add("--max-new-tokens", type=int, help=f"longest completion (default: {usual.max_new_tokens})")
    add("--temperature", type=float, help=f"of sampling and scoring (default: {usual.temperature:g})")
    add("--batch-size", type=int, help=f"completions scored at once (default: {usual.batch_size})")
    add("--device", help="default: cuda where there is one, else cpu")
    add("--seed", type=int, help=f"of the sampling (default: {usual.seed})")


def _parse_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of completions; expected 1 or more")
    return int(text)


def _parse_estimator(text: str) -> credit.Estimator:
    try:
        return credit.parse(json.loads(text) if text.startswith("{") else {"name": text})
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from None


def _parse_settings(text: str) -> dict[str, Any]:
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from None
    if not isinstance(settings, dict):
        raise argparse.ArgumentTypeError(f'{text} is no object; expected JSON such as {{"tau": 0.1}}')
    return settings


def main(arguments: list[str] | None = None) -> int:
    """Reads or samples completions, and shows them; the exit status is 1 if a file is wrong."""
    parser = make_parser()
    flags = parser.parse_args(arguments)
    _refuse_mixed_flags(parser, flags)
    needed = [*(["rich"] if flags.terminal else []), *([] if flags.samples else ["torch", "transformers"])]
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        parser.error(f"{' and '.join(missing)} not found: pip install {' '.join(missing)}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            samples = flags.samples or [_sample_completions(flags, folder)]
            _show(flags, load(*samples))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _refuse_mixed_flags(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """Ends with an error where flags for files and for models come together, or one of either is missing."""
    common = vars(parser.parse_args([]))
    for_models = [name for name in vars(flags) if name not in common]
    if flags.samples and for_models:
        way = "; --also shows another estimator" if "estimator" in for_models else ""
        names = ", ".join(f"--{name.replace('_', '-')}" for name in for_models)
        parser.error(f"{names} is for completions of two models, and files of samples are given{way}")
    if not flags.samples and not {"model", "reference", "prompts"} <= set(for_models):
        parser.error("give either files of samples, or --model, --reference and --prompts")
    if flags.steps and for_models:
        parser.error("--steps selects from files of samples; leave it out with --model")


def _show(flags: argparse.Namespace, runs: Runs) -> None:
    if flags.steps:
        runs = select_steps(runs, flags.steps)
    runs = _add_estimators(runs, flags.also, flags.count if flags.samples else None)
    if flags.terminal:
        from credit.lens.terminal import show_in_terminal

        lines = {name: list(completions) for name, completions in runs.items()}
        if not any(lines.values()):
            raise ValueError(f"{', '.join(runs)} holds no completions; expected at least one record to show")
        for name, completions in lines.items():
            show_in_terminal(completions, title=name if len(runs) > 1 else None)
        return
    html = page(runs, ", ".join(runs))
    Path(flags.output).write_text(html, encoding="utf-8")
    print(f"{flags.output}: {len(html.encode()) / 1e6:.1f} MB")


def _add_estimators(runs: Runs, estimators: list[credit.Estimator], count: int | None) -> Runs:
    """The first completions of each run, followed by what each further estimator makes of them.

    They are counted at the end, since an estimator has to see whole groups.
    """
    if not estimators:
        return {name: islice(completions, count) for name, completions in runs.items()}
    kept = {name: list(completions) for name, completions in runs.items()}
    made = {
        name: [completions, *(recompute(completions, estimator) for estimator in estimators)]
        for name, completions in kept.items()
    }
    return {name: chain.from_iterable(islice(each, count) for each in sides) for name, sides in made.items()}


def _sample_completions(flags: argparse.Namespace, folder: str) -> str:
    """Samples and scores completions with the two models; returns the path of their records."""
    given = vars(flags)
    path = given.get("keep") or str(Path(folder) / f"{Path(flags.prompts).stem}.jsonl")
    sample(
        path,
        model=flags.model,
        reference=flags.reference,
        prompts=read_prompts(flags.prompts, flags.count),
        estimator=credit.get(given.get("estimator", "dgpo"), **given.get("settings", {})),
        reward=_load_function(given.get("reward")),
        options=SamplingOptions(**{name: given[name] for name in SamplingOptions._fields if name in given}),
    )
    return path


def _load_function(place: str | None) -> Any:
    """The function that `file.py:function` names."""
    if place is None:
        return None
    path, _, name = place.rpartition(":")
    if not Path(path).is_file():
        raise ValueError(f"--reward {place}: {path!r} is no file; expected file.py:function")
    function = runpy.run_path(path).get(name)
    if not callable(function):
        raise ValueError(f"--reward {place}: {path} has no function {name!r}; expected file.py:function")
    return function


if __name__ == "__main__":
    sys.exit(main())
