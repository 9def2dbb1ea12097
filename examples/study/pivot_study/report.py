"""The report on a folder of pieces or on published records: tables, pictures, and all numbers in one file."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from pivot_study import plots, writing
from pivot_study.findings import Record
from pivot_study.work import read

RECORDS = "records.json"
PICTURES = {
    "auc": "AUC for pivots over the deviation, by cell and regime",
    "gradients": "gains in cosine by rule and regime, and by drift_alignment",
    "training": "rewards over training, each rule with its own learning rate",
    "calm": "rewards over training with one small learning rate",
}
MARKED = re.compile(r"(<!-- python examples/study/pivots.py -->\n).*?(<!-- end -->)", re.DOTALL)


def load(folder: Path) -> list[Record]:
    """The records of `records.json`."""
    return list(read(folder / RECORDS))


def make(records: Sequence[Record], folder: Path) -> str:
    """Writes the records, the pictures and the tables into the folder; returns the tables."""
    lines = ",\n".join(json.dumps(_shorten(record)) for record in records)
    (folder / RECORDS).write_text(f"[\n{lines}\n]\n")
    text = writing.write(load(folder))
    plots.save(records, folder)
    return text


def publish(folder: Path, results: Path, page: Path) -> None:
    """Copies records and pictures into the results, and puts the tables between the page's marks."""
    results.mkdir(parents=True, exist_ok=True)
    if folder.resolve() != results.resolve():
        for path in (folder / RECORDS, *sorted(folder.glob("*.png"))):
            shutil.copy(path, results)
    shown = [f"![{what}](../examples/study/{results.name}/{name}.png)" for name, what in PICTURES.items()]
    text = "\n\n".join(["", writing.write(load(results)), *shown, ""])
    old = page.read_text(encoding="utf-8")
    page.write_text(MARKED.sub(lambda match: match[1] + text + match[2], old), encoding="utf-8")


def _shorten(value: object) -> object:
    """Floats of five digits."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _shorten(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shorten(each) for each in value]
    return value
