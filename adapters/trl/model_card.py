"""The section of TRL's model card that says how the advantages were estimated."""

import json
from inspect import cleandoc
from pathlib import Path
from typing import Any

import credit
from credit.adapters import traits
from credit.table import PAPER

FOLLOWING = "### Framework versions"  # of TRL's card, at the end of what it says about the training


def add_section(path: Path, estimator: credit.Estimator) -> None:
    """Writes the estimator, its papers and its settings into the card that TRL wrote."""
    before, following, after = path.read_text(encoding="utf-8").partition(FOLLOWING)
    text = f"{before.rstrip()}\n\n{write_section(estimator)}\n{following}{after}"
    path.write_text(text, encoding="utf-8")


def write_section(estimator: credit.Estimator) -> str:
    """The section, as Markdown."""
    settings = json.dumps(_without_loss(estimator.model_dump(mode="json")))
    lines = [
        "### Advantages\n",
        f"In place of TRL's own, the advantages are those of an estimator of credit {credit.__version__}:\n",
        *(f"- {_describe(each)}" for each in _list_all(estimator)),
        f"\n```json\n{settings}\n```",
    ]
    return "\n".join(lines) + "\n"


def _list_all(estimator: credit.Estimator) -> list[credit.Estimator]:
    """The estimator and those that it is made of, each once."""
    below = [each for part in traits.list_below(estimator) for each in _list_all(part)]
    return list({each.name: each for each in (estimator, *below)}.values())


def _describe(estimator: credit.Estimator) -> str:
    text = cleandoc(type(estimator).__doc__ or "")  # and not what a user's class inherits
    title = text.partition("\n")[0].split(":")[0].rstrip(".")
    papers = [f"[arXiv {paper}](https://arxiv.org/abs/{paper})" for paper in PAPER.findall(text)]
    return ", ".join([f"`{estimator.name}`" + (f": {title}" if title else ""), *papers])


def _without_loss(value: Any) -> Any:
    """A dump without the losses of papers, which TRL's own options stand for."""
    if isinstance(value, dict):
        return {name: _without_loss(each) for name, each in value.items() if name != "loss"}
    return [_without_loss(each) for each in value] if isinstance(value, list) else value
