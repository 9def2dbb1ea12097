"""When do token weights find the tokens that decide the reward? Responses have tokens of known kinds.

    python examples/study/pivots.py                  # reduced: some 50 minutes on two cores
    python examples/study/pivots.py --plan full      # four cells, 16 seeds: by count six times as long

A study that was stopped goes on where it stopped. The report is made from its records at the end, or from
published ones: --report examples/study/results-pivots. With --publish it goes there and into docs/study.md.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from estimator_study.flags import read_count, typed
from pivot_study import report, work
from pivot_study.plan import PLANS
from pivot_study.policy import Cell
from pivot_study.tasks import TASKS

from credit.backends.numpy.threads import count_threads

HERE = Path(__file__).resolve().parent
RESULTS, PAGE = HERE / "results-pivots", HERE.parents[1] / "docs" / "study.md"


def parse() -> argparse.Namespace:
    """The flags, with the plan that they ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--plan", default="reduced", choices=sorted(PLANS))
    parser.add_argument("--output", type=Path, help="folder of the records; runs/pivots-PLAN")
    parser.add_argument("--seeds", type=typed(read_count), help="of every drift and training")
    parser.add_argument("--cells", nargs="+", help=f"TASK-STYLE: {', '.join(TASKS)}; wide or narrow")
    parser.add_argument(
        "--workers", type=typed(read_count), default=count_threads(), help="processes of one thread each"
    )
    parser.add_argument(
        "--report", type=Path, help="a folder with records.json, of which only a report is made"
    )
    parser.add_argument(
        "--publish", action="store_true", help="into examples/study/results-pivots and docs/study.md"
    )
    own = parser.parse_args()
    if own.report and not (own.report / report.RECORDS).exists():
        parser.error(f"--report: {own.report} holds no {report.RECORDS}")
    plan = PLANS[own.plan]
    if own.seeds:
        plan = replace(plan, seeds=own.seeds)
    if own.cells:
        known = {f"{task}-{style}": Cell(task, style) for task in TASKS for style in ("wide", "narrow")}
        unknown = [name for name in own.cells if name not in known]
        if unknown:
            parser.error(f"unknown cells {unknown}; there are {', '.join(known)}")
        plan = replace(plan, cells=tuple(known[name] for name in own.cells))
    own.plan, own.output = plan, own.output or Path("runs") / f"pivots-{own.plan}"
    return own


def main() -> int:
    """Works off the plan and reports."""
    own = parse()
    folder = own.report or own.output
    try:
        records = report.load(folder) if own.report else work.run(own.plan, folder, own.workers)
        text = report.make(records, folder)
        print(text)
        if not own.report:
            (folder / "report.md").write_text(text)
        if own.publish:
            report.publish(folder, RESULTS, PAGE)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
