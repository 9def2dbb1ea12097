"""Shows what an estimator does to the tokens of completions, in an HTML page or in the terminal.

    python -m credit.lens samples.jsonl -o lens.html
    python -m credit.lens samples.jsonl --terminal
    python -m credit.lens --model M --reference R --prompts prompts.jsonl -o lens.html

The samples are JSON lines that credit.lens.record wrote. With two Hugging Face models they are made first:
prompts.jsonl holds objects such as {"prompt": "2+2=", "answer": "4"}, and {"prompt", "completion", "reward"}
scores what is there.
"""

import argparse
import json
import runpy
import sys
import tempfile
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import credit
from credit.lens.page import page
from credit.lens.records import read


def make_parser() -> argparse.ArgumentParser:
    """The flags."""
    result = argparse.ArgumentParser(
        "python -m credit.lens", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("samples", nargs="?", help="JSON lines of credit.lens.record")
    result.add_argument("-o", "--output", default="lens.html", help="the page (default: lens.html)")
    result.add_argument("--terminal", action="store_true", help="print to the terminal instead")
    result.add_argument("--count", type=int, help="only so many completions, or prompts of --prompts")
    models = result.add_argument_group("completions of two models")
    models.add_argument("--model", help="path or hub name of the policy")
    models.add_argument("--reference", help="of the reference")
    models.add_argument("--prompts", help="JSON lines with a prompt each, or a text with one a line")
    models.add_argument("--reward", help="file.py:function, called as TRL calls reward functions")
    models.add_argument("--estimator", default="dgpo", help="one of: " + ", ".join(credit.names()))
    models.add_argument("--settings", type=json.loads, default={}, help="settings of the estimator, as JSON")
    models.add_argument("--keep", help="append the records to this file")
    models.add_argument("--generations", type=int, default=8, help="completions a prompt (default: 8)")
    models.add_argument("--max-new-tokens", type=int, default=256, help="their longest length (256)")
    models.add_argument("--temperature", type=float, default=1.0, help="of sampling and of the scores (1)")
    models.add_argument("--batch-size", type=int, default=8, help="completions scored at once (8)")
    models.add_argument("--device", help="default: cuda where there is one, else cpu")
    models.add_argument("--seed", type=int, default=0, help="of sampling (0)")
    return result


def main(arguments: list[str] | None = None) -> int:
    """Reads or makes samples, and shows them."""
    flags = make_parser()
    own = flags.parse_args(arguments)
    made = [own.model, own.reference, own.prompts]
    if bool(own.samples) == any(made) or (any(made) and not all(made)):
        flags.error("give either a file of samples, or --model, --reference and --prompts")
    needed = [*(["rich"] if own.terminal else []), *(["torch", "transformers"] if own.model else [])]
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        flags.error(f"{' and '.join(missing)} not found: pip install {' '.join(missing)}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            samples = own.samples or _sample_completions(own, folder)
            _show(own, samples)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _show(own: argparse.Namespace, samples: str) -> None:
    completions = islice(read(samples), None if own.model else own.count)
    if own.terminal:
        from credit.lens.terminal import show_in_terminal

        show_in_terminal(completions)
        return
    html = page(completions, Path(samples).name)
    Path(own.output).write_text(html, encoding="utf-8")
    print(f"{own.output}: {len(html.encode()) / 1e6:.1f} MB")


def _sample_completions(own: argparse.Namespace, folder: str) -> str:
    """The path of records of the two models' completions."""
    from credit.lens.prompts import read_prompts
    from credit.lens.sampling import Settings, sample

    path = own.keep or str(Path(folder) / f"{Path(own.prompts).stem}.jsonl")
    sample(
        path,
        model=own.model,
        reference=own.reference,
        prompts=read_prompts(own.prompts, own.count),
        estimator=credit.get(own.estimator, **own.settings),
        reward=_load_function(own.reward),
        settings=Settings(**{name: getattr(own, name) for name in Settings._fields}),
    )
    return path


def _load_function(place: str | None) -> Any:
    """The function of `file.py:function`."""
    if place is None:
        return None
    path, _, name = place.rpartition(":")
    if not Path(path).is_file():
        raise ValueError(f"--reward {place}: {path!r} is no file; expected file.py:function")
    found = runpy.run_path(path).get(name)
    if not callable(found):
        raise ValueError(f"--reward {place}: {path} has no function {name!r}")
    return found


if __name__ == "__main__":
    sys.exit(main())
