"""Every estimator on a case small enough to compute by hand from its paper's formula."""

from math import e, log

import numpy as np
import pytest
from named import PACKAGE
from running import arrays, on_numpy

import credit
from credit.estimators.registry import estimator_classes

ONE_IN_FOUR = {"rewards": [1, 0, 0, 0], "groups": [0, 0, 0, 0], "lengths": [1, 1, 1, 1]}
PAIR = {"rewards": [1, 0], "groups": [0, 0]}

CASES = {
    "grpo": ({}, ONE_IN_FOUR, [[1.5], [-0.5], [-0.5], [-0.5]]),
    "dapo": ({}, ONE_IN_FOUR, [[1.5], [-0.5], [-0.5], [-0.5]]),
    "dr_grpo": ({}, ONE_IN_FOUR, [[0.75], [-0.25], [-0.25], [-0.25]]),
    "rloo": ({}, ONE_IN_FOUR, [[1], [-1 / 3], [-1 / 3], [-1 / 3]]),
    # the mean is 1/4, so a success in four counts three
    "max_rl": ({}, ONE_IN_FOUR, [[3], [-1], [-1], [-1]]),
    # rewards differ in two of the groups 0, 1, 2 and 4; group 3 has no valid row: alpha = 4 / 2
    "gpg": (
        {},
        {
            "rewards": [1, 0, 1, 1, 0, 1, np.nan, 7],
            "groups": [0, 0, 1, 1, 2, 2, 3, 4],
            "lengths": [1] * 8,
        },
        [[1], [-1], [0], [0], [-1], [1], [0], [0]],
    ),
    # baseline (3 * 1 + 1 * 0) / 4
    "opo": ({}, PAIR | {"lengths": [3, 1]}, [[0.25] * 3, [-0.75, 0, 0]]),
    # batch: mean 1.25, variance (0.0625 + 1.5625 + 3.0625 + 0.0625) / 3
    "lite_ppo": (
        {},
        {"rewards": [1, 0, 3, 1], "groups": [0, 0, 1, 1], "lengths": [1] * 4},
        np.array([[0.5], [-0.5], [1], [-1]]) / (4.75 / 3) ** 0.5,
    ),
    "remax": ({}, PAIR | {"lengths": [1, 1], "baseline_rewards": [0.25, 0.5]}, [[0.75], [-0.5]]),
    # deviation 1/2, lead 1/2; two that are best lead over nobody
    "pass_at_k": (
        {},
        {"rewards": [1, 0.5, 0, 1, 1, 0], "groups": [0] * 3 + [1] * 3, "lengths": [1] * 6},
        [[1], [0], [0], [0], [0], [0]],
    ),
    # tokens 1/2, -1/2, -1/2, -1/2: mean -1/4, deviation 1/2
    "reinforce_plus_plus_baseline": ({}, PAIR | {"lengths": [1, 3]}, [[1.5, 0, 0], [-0.5] * 3]),
    # returns 1/2, 1, 0, 0: mean 0.375, variance 0.6875 / 3
    "reinforce_plus_plus": (
        {"gamma": 0.5},
        PAIR | {"lengths": [2, 2]},
        np.array([[0.125, 0.625], [-0.375, -0.375]]) / (0.6875 / 3) ** 0.5,
    ),
    # errors 1/2 * 1 - 1 and 1 - 1, then 0 - 0: sums -1/2, 0, 0 of mean -1/6 and variance (1/9 + 2/36) / 2
    "gae": (
        {"gamma": 0.5},
        PAIR | {"lengths": [2, 1], "extra": {"values": [[1, 1], [0, 9]]}},
        np.array([[-1 / 3, 1 / 6], [1 / 6, 0]]) * 12**0.5,
    ),
    # per reward +-sqrt(1/2); 2 and 1 of them leave +-sqrt(1/2), whose batch has deviation 1
    "gdpo": (
        {"reward_weights": [2, 1]},
        {"rewards": [[1, 0], [0, 1]], "groups": [0, 0], "lengths": [1, 1]},
        [[0.5**0.5], [-(0.5**0.5)]],
    ),
    # scores 0.05 and 0.15 at tau 0.1: weights 2 / (1 + e) and 2 e / (1 + e)
    "dgpo": (
        {"tau": 0.1},
        {
            "rewards": [1, -1],
            "groups": [0, 0],
            "lengths": [2, 1],
            "deviation": [[0.1, 0.3], [0.2, 0]],
            "normalized_entropy": [[0.5, 0.5], [0.5, 0]],
        },
        np.array([[2 / (1 + e), 2 * e / (1 + e)], [-1, 0]]) * 0.5**0.5,
    ),
    # ln 100 = 4.60517; bonus 0.4 H = 0.18421 for h = 0.1, and capped at |A| / 2 = 0.25 for h = 0.5
    "entropy_shaped": (
        {"vocab_size": 100},
        ONE_IN_FOUR | {"normalized_entropy": [[0.1], [0.1], [0.5], [0]]},
        [[1.684207], [-0.315793], [-0.25], [-0.5]],
    ),
    # the median of 0.1, 0.2, 0.3, 0.4 is 0.25
    "top_entropy": (
        {"fraction": 0.5},
        PAIR | {"lengths": [2, 2], "normalized_entropy": [[0.1, 0.4], [0.3, 0.2]]},
        np.array([[0, 1], [-1, 0]]) * 0.5**0.5,
    ),
    # O+ rewards 1 + 0.1 * 2 * (3/4, 1/4): 1.15, 1.05; O- rewards -1 - 0.1 * 2 * (1/5, 4/5): -1.04, -1.16
    "gtpo": (
        {"eps": 1e-12},
        {
            "rewards": [1, 1, 0, 0],
            "groups": [0, 0, 0, 0],
            "lengths": [2, 2, 2, 2],
            "normalized_entropy": [[0.3, 0.1], [0.1, 0.3], [0.4, 0.1], [0.1, 0.4]],
        },
        [[1, -1], [-1, 1], [1, -1], [-1, 1]],
    ),
    # O+ mean entropies 0.3, 0.1: 1 + 0.1 * 2 * (3/4, 1/4) = 1.15, 1.05; O- 0.1, 0.4: -1 - 0.1 * 2 *
    # (4/5, 1/5) = -1.16, -1.04; their mean is 0, the sum of their squares 4.8522
    "grpo_s": (
        {},
        {
            "rewards": [1, 1, 0, 0],
            "groups": [0, 0, 0, 0],
            "lengths": [2, 1, 2, 1],
            "normalized_entropy": [[0.2, 0.4], [0.1, 0.0], [0.1, 0.1], [0.4, 0.0]],
        },
        np.array([[1.15, 1.15], [1.05, 0], [-1.16, -1.16], [-1.04, 0]]) / (4.8522 / 3) ** 0.5,
    ),
    # outcomes +-1/sqrt 2; rewards of turn 0: 0.5 and 0.2, so +-1/sqrt 2 again; nobody rewards turn 1
    "mt_grpo": (
        {},
        PAIR
        | {"lengths": [3, 3], "turns": [[0, 0, 1], [0, 1, 1]], "token_rewards": [[0.2, 0.3, 0], [0.2, 0, 0]]},
        np.array([[2, 2, 1], [-2, -1, -1]]) * 0.5**0.5,
    ),
    # steps 1, 2 | 3: mean 2, deviation 1, so -1, 0 | 1; the first step also counts the second
    "process_grpo": (
        {},
        PAIR
        | {"lengths": [3, 2], "turns": [[0, 0, 1], [0, 0, 0]], "token_rewards": [[0.5, 0.5, 2], [0, 3, 0]]},
        [[-1, -1, 0], [1, 1, 0]],
    ),
    # episodes +-1/sqrt 2; returns 0.5, 1 | 0 in state 7: mean and deviation 0.5; state 8 is reached once
    "gigpo": (
        {"gamma": 0.5},
        PAIR
        | {
            "lengths": [3, 2],
            "turns": [[0, 0, 1], [0, 1, 0]],
            "extra": {"states": [[7, 7, 7], [7, 8, 0]]},
        },
        np.array([[1, 1, 1], [-1, -1, 0]]) * 0.5**0.5 + [[0, 0, 1], [-1, 0, 0]],
    ),
    # 1 - 2 p + sum p^2 is 1/2 and 1 on the first tokens: baseline 1/2 / (3/2); the second token has no peer
    "otb": (
        {},
        PAIR
        | {
            "lengths": [2, 1],
            "log_probs": np.log([[0.5, 0.5], [0.25, 1]]),
            "extra": {"sum_squares": [[0.5, 0.5], [0.5, 0]]},
        },
        [[2 / 3, 1], [-1 / 3, 0]],
    ),
    # then 1/2 + 1/2 against 1 + 1/2: baseline 1 / (5/2), wherever the second tokens stand
    "tir_otb": (
        {},
        PAIR
        | {
            "mask": [[1, 0, 1], [1, 1, 0]],
            "log_probs": np.log([[0.5, 1, 0.5], [0.25, 0.5, 1]]),
            "extra": {"sum_squares": [[0.5, 0, 0.5], [0.5, 0.5, 0]]},
        },
        [[2 / 3, 0, 0.6], [-1 / 3, -0.4, 0]],
    ),
    # x = 0.5, -2 | 1: discounted by a half 0.5 - 1 = -0.5, -2 | 1, twice that, and half of +-1/sqrt 2
    "opd": (
        {"teacher_weight": 2, "outcome_weight": 0.5, "gamma": 0.5, "teacher": "reference"},
        PAIR
        | {
            "lengths": [2, 1],
            "log_probs": [[-1, -1], [-2, 0]],
            "reference_log_probs": [[-0.5, -3], [-1, 0]],
        },
        np.array([[-1, -4], [2, 0]]) + np.array([[1, 1], [-1, 0]]) * 0.5**1.5,
    ),
    # q / p = 2, 1.1 | 2, 1.1 clipped to 1.5, 1.1, and for the failure p / q = 1/2, 1/1.1; half of each, and 1/2
    "rlsd": (
        {"clip": 0.5, "teacher": "reference"},
        PAIR
        | {
            "lengths": [2, 2],
            "log_probs": np.log([[0.25, 0.5], [0.25, 0.5]]),
            "reference_log_probs": np.log([[0.5, 0.55], [0.5, 0.55]]),
        },
        np.array([[1.25, 1.05], [-0.75, -1.05 / 1.1]]) * 0.5**0.5,
    ),
    # A = +-1/sqrt 2, and log p = -sqrt 2 ln 3 and 0: delight +-ln 3 and 0, gates 3/4 or 1/4, and 1/2
    "delightful": (
        {},
        PAIR | {"lengths": [2, 2], "log_probs": [[-(2**0.5) * log(3), 0]] * 2},
        np.array([[0.75, 0.5], [-0.25, -0.5]]) * 0.5**0.5,
    ),
    # a quarter more on a planning token of the success, a quarter less on one of the failure
    "hicra": (
        {"alpha": 0.25},
        PAIR | {"lengths": [2, 2], "extra": {"planning": [[1, 0], [0, 1]]}},
        np.array([[1.25, 1], [-1, -0.75]]) * 0.5**0.5,
    ),
    # 0.7 of GRPO's 1/sqrt 2 and 0.3 of it by DGPO's weights
    "mix": (
        {"parts": [[0.7, {"name": "grpo"}], [0.3, {"name": "dgpo", "tau": 0.1}]]},
        {
            "rewards": [1, -1],
            "groups": [0, 0],
            "lengths": [2, 1],
            "deviation": [[0.1, 0.3], [0.2, 0]],
            "normalized_entropy": [[0.5, 0.5], [0.5, 0]],
        },
        np.array([[0.7 + 0.6 / (1 + e), 0.7 + 0.6 * e / (1 + e)], [-1, 0]]) * 0.5**0.5,
    ),
}


@pytest.mark.parametrize("name", PACKAGE)
def test_every_estimator_has_a_worked_example(name):
    assert name in CASES, f"compute {name} by hand for a few responses and add it to CASES in this file"


@on_numpy("name", list(CASES), everywhere=["dgpo"])  # test_equals_the_oracle has all on all libraries
def test_worked_example(library, name):
    settings, case, expected = CASES[name]
    fields = {field: np.asarray(values, np.float32) for field, values in case.items() if field != "extra"}
    extra = {
        name: np.asarray(values, np.int32 if name == "states" else np.float32)
        for name, values in case.get("extra", {}).items()
    }
    if "lengths" in fields:
        lengths = fields.pop("lengths")
        fields["mask"] = np.arange(int(lengths.max())) < lengths[:, None]
    for ids in {"groups", "turns"} & set(fields):
        fields[ids] = fields[ids].astype(np.int32)
    if "eps" in estimator_classes()[name].model_fields:
        settings = {"eps": 0} | settings
    rollouts = arrays(library, credit.Rollouts(**fields, extra=extra))
    result = library.quick(credit.get(name, **settings))(rollouts)
    np.testing.assert_allclose(library.numpy(result.advantages), expected, rtol=2e-6, atol=2e-6)
