"""Shows how much the log-probs of sampled tokens tell of the deviation, where the deviation is known too.

    python examples/loops/compare_bounds.py

It trains the tiny model of torch_loop.py. For some steps it prints the exact deviation, and its bounds from
the sampled tokens alone. For each tau it prints the spread of the weights by the lower bound, and how much of
a weight of DGPO(kappa=0) is unknown: the largest value that it can have, less the smallest. A tau is fit for
use where the spread is large and the unknown part small.
"""

import counting
import sampled_log_probs
import torch_loop

import credit

TAUS = (0.05, 0.5, 5.0, 50.0)


def hide_statistics(rollouts: credit.Rollouts) -> credit.Rollouts:
    """The rollouts with bounds from the log-probs of their sampled tokens instead of exact statistics."""
    fields = (rollouts.mask, rollouts.log_probs.double(), rollouts.reference_log_probs.double())
    responses = [
        sampled_log_probs.Response(*row) for row in zip(*(field.tolist() for field in fields), strict=True)
    ]
    return sampled_log_probs.make_rollouts(rollouts.rewards.tolist(), rollouts.groups.tolist(), responses)


if __name__ == "__main__":
    flags = counting.parse_flags(__doc__)
    for number, step in enumerate(torch_loop.train(flags), start=1):
        if number % 10 and number > 3:
            continue
        hidden = hide_statistics(step.rollouts)
        exact = credit.tokens.mean(step.rollouts.deviation, step.rollouts.mask)
        print(f"step {number}: deviation {float(exact):.4f}", end="")
        for tau in TAUS:
            estimator = sampled_log_probs.BoundedDeviation(tau=tau)
            found = sampled_log_probs.describe(hidden, estimator(hidden), estimator)
            if tau == TAUS[0]:
                lower, upper = found["credit/deviation_lower"], found["credit/deviation_upper"]
                print(f", between {lower:.4f} and {upper:.4f}")
            spread, unknown = found["credit/weight_std"], found["credit/unknown_part_of_weights"]
            print(f"    tau {tau:5.2f}   std of weights {spread:.4f}   unknown part {unknown:.3f}")
