"""Compares estimators under equal compute on verifiable tasks, with small models made on the spot.

    python examples/study/run.py                                  # reduced, on a CPU of two cores
    python examples/study/run.py --plan full --device cuda --time-limit 480    # until it is done

A study that was stopped goes on where it stopped. When it is done, or the time is over, the report is made;
the exit status is 75 where the time was over.
"""

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import report
from estimator_study import pool
from estimator_study.plan import BASELINE, PLANS, Plan


def parse() -> tuple[argparse.Namespace, Plan]:
    """The flags, and the plan that they ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--plan", default="reduced", choices=sorted(PLANS))
    parser.add_argument("--output", type=Path, help="folder of the records and the report; runs/study-PLAN")
    parser.add_argument("--seeds", type=int, help="seeds of every estimator on every task")
    parser.add_argument("--estimators", help='in place of the usual ones: {"grpo": {"name": "grpo"}, ...}')
    parser.add_argument("--settings", help='of every run, e.g. {"steps": 50, "learning_rate": 0.0005}')
    parser.add_argument("--device", default="cpu", help="cpu, or cuda: the runs of many seeds side by side")
    parser.add_argument("--workers", type=int, help="processes; one per core on a CPU, 4 on one card")
    parser.add_argument("--time-limit", type=float, help="seconds after which to stop, to be resumed")
    own = parser.parse_args()
    plan = PLANS[own.plan]
    if own.seeds:
        plan = replace(plan, seeds=own.seeds)
    if own.estimators:
        plan = replace(plan, estimators=json.loads(own.estimators))
    if own.settings:
        plan = replace(plan, settings=replace(plan.settings, **json.loads(own.settings)))
    if BASELINE not in plan.estimators:
        parser.error(f"--estimators needs {BASELINE!r}, to which the others are compared")
    own.output = own.output or Path("runs") / f"study-{own.plan}"
    own.workers = own.workers or (4 if own.device.startswith("cuda") else len(os.sched_getaffinity(0)))
    return own, plan


def main() -> None:
    """Works off the plan and reports."""
    own, plan = parse()
    done = pool.run(plan.units(), own.output, own.device, own.workers, own.time_limit)
    if not done:
        print("Not done yet: the same command goes on from here.")
    report.make(own.output)
    sys.exit(0 if done else os.EX_TEMPFAIL)


if __name__ == "__main__":
    main()
