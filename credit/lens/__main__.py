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
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import Any

import credit
from credit.lens.batches import recompute
from credit.lens.page import page
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
        "--count", type=int, help="show the first COUNT completions of a file, or use COUNT prompts"
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="ESTIMATOR",
        help="show too what this estimator makes of the completions: a name, or JSON with name and settings",
    )
    parser.add_argument("--steps", type=int, nargs="+", help="show only these steps; give the files before")
    models = parser.add_argument_group("completions of two models")
    models.add_argument("--model", help="path or hub name of the policy")
    models.add_argument("--reference", help="path or hub name of the reference model")
    models.add_argument("--prompts", help="file of JSON lines, or a text file with one prompt per line")
    models.add_argument("--reward", help="file.py:function, called as TRL calls reward functions")
    models.add_argument("--estimator", default="dgpo", help="one of: " + ", ".join(credit.names()))
    models.add_argument("--settings", type=json.loads, default={}, help="settings of the estimator, as JSON")
    models.add_argument("--keep", help="append the records to this file")
    models.add_argument("--generations", type=int, default=8, help="completions per prompt (default: 8)")
    models.add_argument("--max-new-tokens", type=int, default=256, help="longest completion (default: 256)")
    models.add_argument("--temperature", type=float, default=1.0, help="of sampling and scoring (default: 1)")
    models.add_argument("--batch-size", type=int, default=8, help="completions scored at once (default: 8)")
    models.add_argument("--device", help="default: cuda where there is one, else cpu")
    models.add_argument("--seed", type=int, default=0, help="of the sampling (default: 0)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Reads or samples completions, and shows them; the exit status is 1 if a file is wrong."""
    parser = make_parser()
    flags = parser.parse_args(arguments)
    for_models = [flags.model, flags.reference, flags.prompts]
    if bool(flags.samples) == any(for_models) or (any(for_models) and not all(for_models)):
        parser.error("give either files of samples, or --model, --reference and --prompts")
    if flags.steps and flags.model:
        parser.error("--steps selects from files of samples; leave it out with --model")
    needed = [*(["rich"] if flags.terminal else []), *(["torch", "transformers"] if flags.model else [])]
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


def _show(flags: argparse.Namespace, runs: Runs) -> None:
    if flags.steps:
        runs = select_steps(runs, flags.steps)
    runs = _add_estimators(runs, flags.also, None if flags.model else flags.count)
    if flags.terminal:
        from credit.lens.terminal import show_in_terminal

        for name, completions in runs.items():
            show_in_terminal(completions, title=name if len(runs) > 1 else None)
        return
    html = page(runs, ", ".join(runs))
    Path(flags.output).write_text(html, encoding="utf-8")
    print(f"{flags.output}: {len(html.encode()) / 1e6:.1f} MB")


def _add_estimators(runs: Runs, also: list[str], count: int | None) -> Runs:
    """The first completions of each run, followed by what each further estimator makes of them.

    They are counted at the end, since an estimator has to see whole groups.
    """
    estimators = [credit.parse(json.loads(text) if text.startswith("{") else {"name": text}) for text in also]
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
    from credit.lens.prompts import read_prompts
    from credit.lens.sampling import SamplingOptions, sample

    path = flags.keep or str(Path(folder) / f"{Path(flags.prompts).stem}.jsonl")
    sample(
        path,
        model=flags.model,
        reference=flags.reference,
        prompts=read_prompts(flags.prompts, flags.count),
        estimator=credit.get(flags.estimator, **flags.settings),
        reward=_load_function(flags.reward),
        options=SamplingOptions(**{name: getattr(flags, name) for name in SamplingOptions._fields}),
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
