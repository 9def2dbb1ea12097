"""Prints the README's table of estimators as Markdown, from their docstrings and settings."""

import argparse
import re
import sys
from inspect import getdoc
from itertools import dropwhile, takewhile
from typing import Any

from credit.estimators.base import Estimator
from credit.estimators.registry import estimator_classes
from credit.loss import PolicyLoss
from credit.losses.objectives import SETTINGS

PAPER = re.compile(r"arXiv\s+(\d{4}\.\d{5})")


def write_markdown() -> str:
    """A table with one row per estimator of the package: name, title, formula, papers, needs and loss."""
    rows = ["| name | | formula | paper | needs | loss |", "|---|---|---|---|---|---|"]
    for name, kind in sorted(estimator_classes().items()):
        if kind.__module__.startswith("credit."):
            rows.append(f"| `{name}` | " + " | ".join(_write_cells(kind)) + " |")
    return "\n".join(rows) + "\n"


def _write_cells(kind: type[Estimator]) -> list[str]:
    text = getdoc(kind) or ""
    title = text.partition("\n")[0].split(":")[0].rstrip(".")
    papers = PAPER.findall(text)
    links = ", ".join(f"[{paper}](https://arxiv.org/abs/{paper})" for paper in papers)
    required = any(field.is_required() for field in kind.model_fields.values())
    defaults: Any = kind  # a class without required settings can be called without any
    needs = "what its parts need" if required else ", ".join(f"`{n}`" for n in defaults().needs) or "rewards"
    return [title, _find_formula(text), links, needs, _describe_loss(kind.model_fields["loss"].default)]


def _find_formula(text: str) -> str:
    """The first indented block of a docstring, which holds the formula, in code spans of one line each."""
    from_formula = dropwhile(lambda line: not line.startswith("    "), text.splitlines())
    lines = [line.strip() for line in takewhile(lambda line: line.startswith("    "), from_formula)]
    return "<br>".join(f"`{re.sub(' {2,}', '   ', line)}`" for line in lines).replace("|", "\\|")


def _describe_loss(loss: PolicyLoss) -> str:
    reads = SETTINGS[loss.objective]
    parts = [loss.objective.replace("_", "-")] if loss.objective != "clip" else []
    if "clip_low" in reads:
        low, high = f"{loss.clip_low:g}", f"{loss.clip_high:g}"
        parts.append(f"clip {low if low == high else f'{low} / {high}'}")
    parts += ["sequence ratio"] if loss.ratio == "sequence" else []
    return ", ".join([*parts, loss.aggregation.replace("_", " ")])


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; there are no flags but --help."""
    parser = argparse.ArgumentParser("python -m credit.table", description=__doc__, allow_abbrev=False)
    parser.parse_args(arguments)
    print(write_markdown(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
