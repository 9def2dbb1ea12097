"""The mergeable state: any split of the vocabulary, in any order and tree, gives the same statistics."""

import logit_cases
import numpy as np
import pytest
import statistics_oracle as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from credit.backends import array_api
from credit.backends.vocab import by_name, state

SIZE = 2_500
CASES = ("near", "masked", "apart", "finite", "large", "one_hot")


def logits(case):
    """Rows x, y [4, SIZE] with what is hard about a merge."""
    rng = np.random.default_rng(11)
    x, y = logit_cases.ordinary(rng, rows=4, size=SIZE, noise=1e-2 if case == "near" else 1.0)
    if case == "masked":
        x[:, 300:1_200], y[:, 900:2_000] = -np.inf, -np.inf
    if case == "apart":
        x[:, :1_250], y[:, 1_250:] = -np.inf, -np.inf
    if case == "finite":
        x[0, :2_000], x[1], y[2, 500:], y[3] = -1e9, logit_cases.LOWEST, -1e38, -1e38
    if case == "large":
        x, y = 1e4 * np.tanh(x), 1e4 * np.tanh(y)
    if case == "one_hot":
        x[:], y[:] = -np.inf, -np.inf
        x[:, 5], y[:, 2_100] = 1.0, -2.0
        y[0], x[3, 2_400] = x[0], 1.0
    return x, y


def token_ids(x):
    return np.where(np.arange(4) % 2, x.argmax(-1), [3, 0, SIZE - 1, 0])


ALSO = ("sum_squares", "kl", "reverse_kl")


def part(x, y, ids, half, start, stop):
    with np.errstate(all="ignore"):
        return state.pair_state(x[:, start:stop], y[:, start:stop], ids[:, None] - start, half, ALSO)


def joined(parts, order, half):
    """One state from many: each step merges the pair of neighbours that `order` picks."""
    parts = list(parts)
    for pick in order:
        if len(parts) == 1:
            break
        at = pick % (len(parts) - 1)
        with np.errstate(all="ignore"):
            parts[at : at + 2] = [state.merge_pair(parts[at], parts[at + 1], half)]
    return parts[0]


def assert_within_bounds(final, x, y, ids, half, temperature):
    with np.errstate(all="ignore"):
        log_p, log_q, entropy, deviation, *further = array_api.read_statistics(final, half, ALSO)
    expected = oracle.statistics(x, y, ids, temperature)
    used = oracle.errors((log_p, log_q, entropy / np.log(SIZE), deviation), expected, SIZE)
    assert max(used.values()) <= 1.0, used
    further = dict(zip(ALSO, further, strict=True))
    used = oracle.further_errors(further, oracle.further(x, y, temperature))
    assert max(used.values()) <= 1.0, used


@settings(max_examples=60, deadline=None)
@given(
    case=st.sampled_from(CASES),
    cuts=st.sets(st.integers(1, SIZE - 1), max_size=8),
    shuffle=st.randoms(use_true_random=False),
    order=st.lists(st.integers(0, 100), min_size=8, max_size=8),
    temperature=st.sampled_from((0.1, 1.0, 5.0)),
)
def test_any_split_order_and_tree(case, cuts, shuffle, order, temperature):
    x, y = logits(case)
    ids = token_ids(x)
    half = np.full((4, 1), 0.5 / temperature, np.float32)
    edges = [0, *sorted(cuts), SIZE]
    parts = [part(x, y, ids, half, start, stop) for start, stop in zip(edges[:-1], edges[1:], strict=True)]
    shuffle.shuffle(parts)
    assert_within_bounds(joined(parts, order, half), x, y, ids, half, temperature)


@pytest.mark.parametrize("first", [True, False])
def test_a_part_of_masked_entries_is_neutral(first):
    x, y = logits("near")
    ids, half = token_ids(x), np.full((4, 1), 0.5, np.float32)
    whole = part(x, y, ids, half, 0, SIZE)
    nothing = np.full((4, 7), -np.inf, np.float32)
    neutral = part(nothing, nothing, np.full(4, -1), half, 0, 7)
    merged = joined((neutral, whole) if first else (whole, neutral), [0], half)
    for field in ("policy", "reference"):
        for one, other in zip(getattr(whole, field), getattr(merged, field), strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(whole.moment, merged.moment)
    np.testing.assert_allclose(merged.deviation, whole.deviation, rtol=1e-6)
    for one, other in zip(whole.further, merged.further, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_nothing_but_neutral_parts_is_no_distribution():
    nothing = np.full((2, 7), -np.inf, np.float32)
    half, ids = np.full((2, 1), 0.5, np.float32), np.zeros(2, int)
    parts = [part(nothing, nothing, ids, half, 0, 7) for _ in range(3)]
    with np.errstate(all="ignore"):
        fields = array_api.read_statistics(joined(parts, [0, 0], half), half, ALSO)
    for field in fields:
        assert np.isnan(field).all()


def test_the_state_of_one_model_merges_alike():
    x, y = logits("masked")
    ids, half = token_ids(x), np.full((4, 1), 0.5, np.float32)
    pairs = [part(x, y, ids, half, start, start + 500) for start in range(0, SIZE, 500)]
    with np.errstate(all="ignore"):
        singles = [
            state.single_state(x[:, start : start + 500], ids[:, None] - start, half)
            for start in range(0, SIZE, 500)
        ]
        one = singles[0]
        for single in singles[1:]:
            one = state.merge_single(one, single, half)
    two = joined(pairs, [0] * 4, half)
    np.testing.assert_array_equal(one.moment, two.moment)
    for a, b in zip(one.policy, two.policy, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("models", [1, 2])
def test_packing_is_one_order_of_four_fields_a_model(models):
    x, y = logits("near")
    ids, half = token_ids(x), np.full((4, 1), 0.5, np.float32)
    whole = part(x, y, ids, half, 0, SIZE)
    also = ALSO if models == 2 else ("sum_squares",)
    if models == 1:
        squares = by_name.Further(sum_squares=whole.further.sum_squares)
        whole = state.Single(whole.policy, whole.moment, squares)
    fields = state.pack(whole)
    assert len(fields) == models * state.FIELDS + len(also)
    policy = (x.max(-1), None, np.take_along_axis(x, ids[:, None], -1)[:, 0], None)
    reference = (y.max(-1), None, np.take_along_axis(y, ids[:, None], -1)[:, 0], None)
    for field, expected in zip(fields, (policy, policy + reference)[models - 1], strict=False):
        if expected is not None:
            np.testing.assert_array_equal(field[:, 0], expected)
    again = state.unpack(fields, also)
    assert type(again) is type(whole)
    for one, other in zip(state.pack(again), fields, strict=True):
        assert one is other
