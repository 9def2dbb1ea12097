"""Makes a study's report from its records: python examples/study/report.py runs/study-reduced

With --publish its numbers and pictures also go into examples/study/results, and table and sentences into
the README.
"""

import argparse
import json
import re
import shutil
from pathlib import Path

from estimator_study import journal, page, plots, runs, writing
from estimator_study.findings import Findings
from estimator_study.plan import BASELINE

HERE = Path(__file__).resolve().parent
README = HERE.parents[1] / "README.md"
MARKED = re.compile(r"(<!-- python examples/study/report.py -->\n).*?(<!-- end -->)", re.DOTALL)


def make(folder: Path) -> str:
    """Writes the page, the pictures and the numbers; returns table and sentences as Markdown."""
    findings = Findings(runs.load(folder))
    if not any(run.steps for run in findings.runs):
        raise SystemExit(f"{folder} holds no steps of a study yet")
    pictures = [plots.save(plots.differences(findings.against(BASELINE)), folder / "differences.png")]
    for task in dict.fromkeys(run.task for run in findings.runs):
        pictures.append(plots.save(plots.curves(findings.runs, task), folder / f"curves-{task}.png"))
    settings = journal.read(next(iter(sorted(folder.glob("*.jsonl")))))[0]
    settings = {key: settings[key] for key in ("settings", "estimators")}
    summary = settings | {"differences from": findings.comparisons()}
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    lines = ",\n".join(map(json.dumps, findings.numbers()))
    (folder / "runs.json").write_text(f"[\n{lines}\n]\n")
    (folder / "index.html").write_text(page.html(findings, pictures, settings))
    text = writing.markdown(writing.table(findings))
    text += "\n\n" + "\n".join(f"- {sentence}" for sentence in writing.sentences(findings)) + "\n"
    print(f"{text}\n{folder / 'index.html'}")
    return text


def publish(folder: Path, text: str) -> None:
    """Copies numbers and pictures, and puts the text between the README's marks."""
    results = HERE / "results"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir()
    for path in (folder / "summary.json", folder / "runs.json", *sorted(folder.glob("*.png"))):
        shutil.copy(path, results)
    text += "\n![paired differences from grpo](examples/study/results/differences.png)\n"
    README.write_text(MARKED.sub(lambda match: match[1] + text + match[2], README.read_text()))


def main() -> None:
    """Reports on a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--publish", action="store_true")
    own = parser.parse_args()
    text = make(own.folder)
    if own.publish:
        publish(own.folder, text)


if __name__ == "__main__":
    main()
