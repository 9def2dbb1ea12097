"""Makes a study's report from its records: python examples/study/report.py runs/study-reduced

With --publish its numbers and pictures also go into examples/study/results, and table and sentences into
docs/study.md. Where the journals are gone and runs.json is left, as in examples/study/results, the report is
made from that; curves are then those that are there.
"""

import argparse
import json
import re
import shutil
import sys
from pathlib import Path
from textwrap import TextWrapper
from typing import Any

from estimator_study import journal, page, plots, runs, writing
from estimator_study.findings import Findings
from estimator_study.plan import BASELINE

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PAGE = HERE.parents[1] / "docs" / "study.md"
MARKED = re.compile(r"(<!-- python examples/study/report.py -->\n).*?(<!-- end -->)", re.DOTALL)


def make(folder: Path) -> str | None:
    """Writes the page, the pictures and the numbers; table and sentences as Markdown, None without a step."""
    findings = Findings(runs.load(folder))
    if not any(run.steps or run.numbers for run in findings.runs):
        print(f"{folder} holds no steps of a study yet, so there is no report.")
        return None
    pictures = draw(findings, folder)
    settings = read_settings(folder)
    summary = settings | {"differences from": findings.comparisons()}
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    if list(folder.glob("*.jsonl")):
        lines = ",\n".join(map(json.dumps, findings.numbers()))
        (folder / "runs.json").write_text(f"[\n{lines}\n]\n")
    text = write(findings)
    say(text)
    if folder.resolve() != RESULTS:  # which is published without a page
        (folder / "index.html").write_text(page.html(findings, pictures, settings), encoding="utf-8")
        print(folder / "index.html")
    return text


def draw(findings: Findings, folder: Path) -> list[Path]:
    """The differences, and the curves of each task where the steps are recorded."""
    pictures = [plots.save(plots.differences(findings.against(BASELINE)), folder / "differences.png")]
    if not any(run.steps for run in findings.runs):
        return pictures + sorted(folder.glob("curves-*.png"))
    for task in dict.fromkeys(run.task for run in findings.runs):
        pictures.append(plots.save(plots.curves(findings.runs, task), folder / f"curves-{task}.png"))
    return pictures


def read_settings(folder: Path) -> dict[str, Any]:
    """Settings and estimators: a journal's own, or those of the summary that is left."""
    journals, summary = sorted(folder.glob("*.jsonl")), folder / "summary.json"
    if journals:
        whole = journal.read_first(journals[0]) or {}
    else:
        whole = json.loads(summary.read_text()) if summary.exists() else {}
    return {key: whole[key] for key in ("settings", "estimators") if key in whole}


def say(text: str) -> None:
    """Prints, also where the console has no Δ, as on Windows."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


def write(findings: Findings) -> str:
    """Table and sentences as Markdown."""
    wrap = TextWrapper(140, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
    said = "\n".join(map(wrap.fill, writing.sentences(findings)))
    return f"{writing.markdown(writing.table(findings))}\n\n{said}\n"


def publish(folder: Path, text: str) -> None:
    """Copies numbers and pictures, and puts the text between the marks of docs/study.md."""
    if folder.resolve() != RESULTS:
        shutil.rmtree(RESULTS, ignore_errors=True)
        RESULTS.mkdir()
        for path in (folder / "summary.json", folder / "runs.json", *sorted(folder.glob("*.png"))):
            shutil.copy(path, RESULTS)
    text += "\n![paired differences from grpo](../examples/study/results/differences.png)\n"
    old = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(MARKED.sub(lambda match: match[1] + text + match[2], old), encoding="utf-8")


def main() -> None:
    """Reports on a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--publish", action="store_true")
    own = parser.parse_args()
    try:
        text = make(own.folder)
    except journal.Unusable as error:
        raise SystemExit(str(error)) from error
    if text is None:
        raise SystemExit(1)
    if own.publish:
        publish(own.folder, text)


if __name__ == "__main__":
    main()
