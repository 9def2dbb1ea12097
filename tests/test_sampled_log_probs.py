"""Credit from the log-probs of sampled tokens: the bounds hold, and the example says what they leave open."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import run_to_end
from sampled_log_probs import BoundedDeviation, Response, bound_weights, make_rollouts
from sampled_tokens import RANDOM, VOCABULARY, compute_deviation, draw_distributions, pick

import credit

ROOT = Path(__file__).parents[1]


def make_example(rows=4, length=6, known=None):
    """Rollouts of which only log-probs of `known` tokens per position are known, and their exact deviation."""
    log_p, log_q = draw_distributions((rows, length))
    ids = RANDOM.integers(0, VOCABULARY, (rows, length))
    responses = []
    for row in range(rows):
        mask = np.arange(length) < length - row
        top = None if known is None else (log_p[row, :, :known], log_q[row, :, :known])
        responses.append(Response(mask, pick(log_p, ids)[row], pick(log_q, ids)[row], top))
    rollouts = make_rollouts([1.0, 0.0] * (rows // 2), [0] * rows, responses)
    return rollouts, compute_deviation(log_p, log_q)


@pytest.mark.parametrize("known", [None, 3, VOCABULARY])
def test_the_deviation_and_its_weights_lie_between_their_bounds(known):
    rollouts, deviation = make_example(known=known)
    mask = rollouts.mask
    lower, upper = rollouts.extra["deviation_lower"], rollouts.extra["deviation_upper"]
    assert (lower[mask] <= deviation[mask] + 1e-12).all()
    assert (upper[mask] >= deviation[mask] - 1e-12).all()
    if known == VOCABULARY:
        np.testing.assert_allclose(lower[mask], deviation[mask], atol=1e-7)
        np.testing.assert_allclose(upper[mask], deviation[mask], atol=1e-7)
    for tau in (0.03, 0.5, 20.0):
        weights = credit.DGPO(kappa=0, tau=tau)(rollouts._replace(deviation=deviation)).weights
        least, most = bound_weights(rollouts, tau)
        assert (least[mask] <= weights[mask] * (1 + 1e-5) + 1e-6).all()
        assert (most[mask] >= weights[mask] * (1 - 1e-5) - 1e-6).all()


def test_the_lower_bound_of_the_sampled_token_is_the_binary_deviation():
    rollouts, _ = make_example()
    expected = credit.binary_deviation(rollouts.log_probs, rollouts.reference_log_probs)
    assert np.array_equal(rollouts.extra["deviation_lower"][rollouts.mask], expected[rollouts.mask])


def test_places_without_a_token_are_as_if_they_were_not_there():
    log_p, log_q = draw_distributions((5,))
    wide = [np.concatenate([x[:, :3], np.full((5, 2), -np.inf)], axis=1) for x in (log_p, log_q)]
    rows = [
        Response(np.ones(5, bool), log_p[:, 0], log_q[:, 0], tuple(top))
        for top in (wide, [x[:, :3] for x in (log_p, log_q)])
    ]
    rollouts = make_rollouts([1.0, 0.0], [0, 0], rows)
    for bound in rollouts.extra.values():
        assert np.isfinite(bound).all()
        np.testing.assert_allclose(bound[0], bound[1], rtol=1e-12)


def test_advantages_are_the_formula_by_hand():
    rollouts, _ = make_example(rows=2)
    result = BoundedDeviation(tau=0.1, base="dr_grpo")(rollouts)
    for row, advantage in enumerate((0.5, -0.5)):
        scores = np.exp(rollouts.extra["deviation_lower"][row][rollouts.mask[row]] / 0.1)
        expected = advantage * len(scores) * scores / scores.sum()
        np.testing.assert_allclose(result.advantages[row][rollouts.mask[row]], expected, rtol=1e-6)
    assert {"deviation_lower_mean", "deviation_upper_mean"} <= set(result.metrics)


def test_no_tau_is_both_effective_and_known_where_policy_and_reference_are_near(tmp_path):
    command = [sys.executable, str(ROOT / "examples/loops/compare_bounds.py"), "--steps", "3"]
    printed = run_to_end(command, os.environ | {"PYTHONPATH": str(ROOT)}, tmp_path)
    _, *last = printed.split("step 3: ")[1].splitlines()
    exact, lower, upper = map(float, re.findall(r"[\d.]+\d", printed.split("step 3: ")[1].splitlines()[0]))
    assert lower < 0.5 * exact < 0.1 < 0.5 < upper
    for line in last:
        spread, unknown = map(float, re.search(r"weights ([\d.]+) .* part ([\d.]+)", line).groups())
        assert spread < 0.05 or unknown > 1


def test_what_needs_the_deviation_itself_is_refused_and_what_needs_log_probs_is_not():
    rollouts, _ = make_example()
    for estimator in (credit.DGPO(), credit.DGPO(kappa=0)):
        with pytest.raises(ValueError, match="deviation"):
            estimator(rollouts)
    credit.Delightful()(rollouts)
    credit.RLSD(teacher="reference")(rollouts)
