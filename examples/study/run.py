"""Compares estimators under equal compute on verifiable tasks, with small models made on the spot.

    python examples/study/run.py                                  # reduced, on a CPU of two cores
    python examples/study/run.py --plan full --device cuda --time-limit 480    # until it is done
    python examples/study/run.py --tasks sorting:6,brackets:8 --estimators '{"grpo": {"name": "grpo"}, ...}'

A study that was stopped goes on where it stopped. When it is done, or the time is over, the report is made;
the exit status is 75 where the time was over.
"""

import sys

import report
from estimator_study import flags, journal, pool

TIME_IS_OVER = 75  # os.EX_TEMPFAIL, which Windows lacks


def main() -> int:
    """Works off the plan and reports."""
    own, plan = flags.parse(__doc__)
    try:
        journal.refuse_mixture(own.output, plan.estimators, plan.settings)
        done = pool.run(plan.units(), own.output, own.device, own.workers, own.time_limit)
        if not done:
            print("Not done yet: the same command goes on from here.")
        report.make(own.output)
    except journal.Unusable as error:
        print(error, file=sys.stderr)
        return 1
    return 0 if done else TIME_IS_OVER


if __name__ == "__main__":
    sys.exit(main())
