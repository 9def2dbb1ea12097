"""The README's table of estimators, from their docstrings and settings: python -m credit.table"""

import re
from typing import Any

from credit.estimators.base import Estimator
from credit.estimators.registry import estimator_classes
from credit.loss import PolicyLoss

PAPER = re.compile(r"arXiv\s+(\d{4}\.\d{5})")


def write_markdown() -> str:
    """One row per estimator of the package: name, what it is, formula, paper, needs, loss."""
    rows = ["| name | | formula | paper | needs | loss |", "|---|---|---|---|---|---|"]
    for name, kind in sorted(estimator_classes().items()):
        if kind.__module__.startswith("credit."):
            rows.append(f"| `{name}` | " + " | ".join(_write_cells(kind)) + " |")
    return "\n".join(rows) + "\n"


def _write_cells(kind: type[Estimator]) -> list[str]:
    text = kind.__doc__ or ""
    title = text.splitlines()[0].split(":")[0].rstrip(".")
    papers = PAPER.findall(text)
    links = ", ".join(f"[{paper}](https://arxiv.org/abs/{paper})" for paper in papers)
    required = any(field.is_required() for field in kind.model_fields.values())
    defaults: Any = kind  # a class without required fields can be called without any
    needs = "what its parts need" if required else ", ".join(f"`{n}`" for n in defaults().needs) or "rewards"
    return [title, _find_formula(text), links, needs, _describe_loss(kind.model_fields["loss"].default)]


def _find_formula(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.startswith("        ")]
    return "<br>".join(f"`{re.sub(' {2,}', '   ', line)}`" for line in lines).replace("|", "\\|")


def _describe_loss(loss: PolicyLoss) -> str:
    clip = (
        f"{loss.clip_low:g}" if loss.clip_low == loss.clip_high else f"{loss.clip_low:g} / {loss.clip_high:g}"
    )
    return f"clip {clip}, {loss.aggregation.replace('_', ' ')}"


if __name__ == "__main__":
    print(write_markdown(), end="")
