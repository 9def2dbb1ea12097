"""Rows of the arrays that users give by name, made of the ids of each response's tokens."""

import credit
from credit.adapters import table

TOKENS = {
    "teacher_log_probs": lambda token: -(token + 1) / 8,
    "states": lambda token: token % 3,
    "token_rewards": lambda token: token / 8,
    "values": lambda token: token / 16 - 0.5,
    "planning": lambda token: token % 2 == 0,
}


def make_rows(responses):
    """For each array a row per response, by its name without "extra."."""
    return {name: [[of(int(token)) for token in ids] for ids in responses] for name, of in TOKENS.items()}


NEEDS = (
    *("log_probs", "reference_log_probs", "normalized_entropy", "deviation", "token_rewards", "turns"),
    *("extra.sum_squares", "extra.states", "extra.teacher_log_probs", "extra.planning"),
)
"""What one run of a framework without a critic gives, so that it feeds all estimators that need no more."""


MAYBE_ZERO = ("max_rl", "pass_at_k")
"""Give 0 where no group's mean reward is positive, and where the best of every group are tied."""


def try_estimators(rollouts):
    """How many estimators were fed by a framework's batch; fails for one without finite advantages.

    All 0 they may be for those of MAYBE_ZERO, and where the weights are 0 on all tokens that GRPO credits, as
    those of top_entropy may be.
    """
    fed, credited = 0, credit.GRPO()(rollouts).advantages != 0
    for name, estimator in table.list_estimators().items():
        if set(estimator.required_fields) <= set(NEEDS):
            advantages, weights, _ = estimator(rollouts)
            assert advantages.isfinite().all(), name
            may_be_zero = name in MAYBE_ZERO or not (credited & (weights != 0)).any()
            assert (advantages != 0).any() or may_be_zero, name
            fed += 1
    return {"fed": rollouts.rewards.new_tensor(fed)}
