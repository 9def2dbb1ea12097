"""The report as one HTML page that needs nothing beside itself."""

import base64
import json
import re
from html import escape
from pathlib import Path

from estimator_study import writing
from estimator_study.findings import Findings
from estimator_study.plan import BASELINE
from estimator_study.runs import MEASURES, TESTED

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem;
  padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0; display: block; overflow-x: auto }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left; white-space: nowrap }
img { max-width: 100%; display: block; margin: 1.5rem 0 } .failed { color: #b00020 } pre { overflow-x: auto }
"""


def html(findings: Findings, pictures: list[Path], settings: dict) -> str:
    """Sentences, table, failures, pictures, each task's differences, settings."""
    body = ["<h1>Estimators compared under equal compute</h1>"]
    body += [f"<p>{escape(sentence)}</p>" for sentence in writing.sentences(findings)]
    body += [_table(writing.table(findings)), *_failures(findings)]
    body += [_picture(path) for path in pictures]
    for cell in findings.cells:
        body += [f"<h2>{cell[0].replace('_', ' ')}, length {cell[1]}</h2>", _warm_up(findings, cell)]
        body.append("<p>P values are corrected for the differences of this table alone.</p>")
        body.append(_table(_of_cell(findings, cell)))
    body += ["<h2>Settings</h2>", f"<pre>{escape(json.dumps(settings, indent=2))}</pre>"]
    head = f'<meta charset="utf-8"><title>Estimators compared</title><style>{STYLE}</style>'
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(body)}</body></html>\n"


def _warm_up(findings: Findings, cell: tuple[str, int]) -> str:
    reached = [run.warm_up["accuracy"] for run in findings.runs if run.cell == cell and run.warm_up]
    return (
        f"<p>Sampled accuracy after the warm-up: {min(reached):.2f} to {max(reached):.2f}.</p>"
        if reached
        else ""
    )


def _of_cell(findings: Findings, cell: tuple[str, int]) -> list[list[str]]:
    found = findings.against(BASELINE, cell)
    rows = [["estimator", *(f"Δ {MEASURES[key].label}" for key in TESTED)]]
    for name in findings.names:
        if name != BASELINE:
            rows.append([name, *(writing.show(key, found[key][name], findings) for key in TESTED)])
    return rows


def _failures(findings: Findings) -> list[str]:
    failed = [run for run in findings.runs if run.failed]
    if not failed:
        return []
    rows = [
        f"<li>{escape(run.estimator)}, {run.task} {run.length}, seed {run.seed}: "
        f"<code>{escape(run.failed or '')}</code></li>"
        for run in failed
    ]
    again = "<p>To compute a unit anew, delete its .jsonl file and give the command of the study again.</p>"
    return ["<h2 class=failed>Failed runs</h2>", again, "<ul>", *rows, "</ul>"]


def _table(rows: list[list[str]]) -> str:
    def cells(row: list[str], tag: str) -> str:
        return "".join(f"<{tag}>{_bold(escape(cell))}</{tag}>" for cell in row)

    heading, *body = rows
    lines = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in body)
    return f"<table><tr>{cells(heading, 'th')}</tr>{lines}</table>"


def _bold(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(path.stem)}" src="data:image/png;base64,{data}">'
