"""What has to hold for every registered estimator on every array library; new ones are found by name."""

from functools import cache, partial

import numpy as np
import oracle
import pytest
import running
import strategies
from hypothesis import given
from hypothesis import strategies as st
from named import NAMES, make
from running import arrays, quick_jit, run
from strategies import N, examples

import credit
from credit import DGPO, GRPO, GRPOS, MTGRPO, ReinforcePlusPlus, Rollouts
from credit.estimators.prepare import prepare_rollouts
from credit.fields import map_arrays

# Their own eps amplifies the rounding of shaped rewards that are nearly equal.
SOFT = dict.fromkeys(("gigpo", "grpo_s", "gtpo", "mt_grpo", "process_grpo"), {"eps": 1e-2})
NAMED = [make(name, **SOFT.get(name, {})) for name in NAMES]
# Estimators whose formula does not compare the responses of a group, and those that do so by more than
# their rewards: an estimator of another kind than most is added here.
NOT_RELATIVE = ("gae", "gtpo", "opd", "reinforce_plus_plus", "remax")
NOT_BY_REWARD = ("gigpo", "grpo_s", "mt_grpo", "process_grpo")
RELATIVE = [e for e in NAMED if e.name not in NOT_RELATIVE]
BY_REWARD = [e for e in RELATIVE if e.name not in NOT_BY_REWARD]
INFINITE_TAU = DGPO(tau=float("inf"))
SETTINGS = [
    *NAMED,
    credit.GAE(gamma=0.9, lam=0.8, kl_coefficient=0.5, rewards_from="both", whiten_correction=0),
    GRPO(correction=0, eps=1e-2),
    GRPO(eps=0),
    GRPO(leave_one_out=True),
    GRPO(leave_one_out=True, correction=0, eps=0),
    credit.DrGRPO(baseline="batch"),
    credit.GPG(scale_by="nonzero_rewards", f=2.0),
    MTGRPO(eps=1e-2, gamma=0.9, turn_weight=0.5),
    credit.GiGPO(divide_by_std=False, gamma=0.8, step_weight=0.5, rewards_from="both"),
    credit.TIROTB(zero_tail=False, rewards_from="both"),
    credit.ProcessGRPO(eps=1e-2, correction=0, rewards_from="both"),
    ReinforcePlusPlus(gamma=0.9, kl_coefficient=0.5, rewards_from="both"),
    ReinforcePlusPlus(gamma=0.9, rewards_from="tokens"),
    ReinforcePlusPlus(gamma=0.9, divide_by_std=False),
    credit.ReinforcePlusPlusBaseline(whiten_correction=0),
    credit.ReinforcePlusPlusBaseline(divide_by_std=False),
    credit.GAE(lam=0.8, divide_by_std=False),
    credit.Delightful(eta=3.0, base="rloo"),
    credit.RLSD(teacher="reference", mixing=1.0, clip=2.0, base="dr_grpo"),
    credit.OPD(teacher="reference", outcome_weight=0, gamma=0.9, largest_log_ratio=1.0),
    DGPO(tau=0.02, kappa=2.5),
    DGPO(tau=1.0, kappa=0, correction=0),
    INFINITE_TAU,
    DGPO(tau=0.1, base="rloo"),
    credit.EntropyShaped(base="dr_grpo"),
    credit.TopEntropy(base="reinforce_plus_plus_baseline"),
]


def having(trait, estimators=NAMED):
    return [estimator for estimator in estimators if getattr(estimator, trait)]


def label(estimator):
    changed = estimator.model_dump(exclude_defaults=True)
    return "-".join([estimator.name, *(f"{k}={v}" for k, v in changed.items())])


def every(estimators):
    return pytest.mark.parametrize("estimator", estimators, ids=label)


def on_numpy(estimators=NAMED, **libraries):
    return running.on_numpy("estimator", estimators, label=label, **libraries)


def assert_close(actual, expected, unit=1.0, rtol=1e-5):
    """Within rtol, or rtol / 10 of `unit`: what cancels is only known to the precision of its parts."""
    bound = rtol * np.abs(expected) + 0.1 * rtol * unit
    assert (np.abs(actual - expected) <= bound).all()


def adds_to_rewards(estimator):
    """Whether values per token are added to rewards, or discounts weigh them, which float32 rounds."""
    return estimator.name in ("gae", "gigpo") or getattr(estimator, "rewards_from", None) == "both"


def assert_share(actual, values, rounding):
    """The share of positive values; those that are 0 but for the rounding may be on either side of 0."""
    least, most = (float((values > limit).sum()) / max(values.size, 1) for limit in (rounding, -rounding))
    assert least - 1e-6 <= actual <= most + 1e-6


def compared_unit(estimator, batch, advantages):
    """The largest |A| among the rows that each row is compared with, [N, 1]."""
    if getattr(estimator, "baseline", "group") == "batch":
        return np.full((len(advantages), 1), np.abs(advantages).max())
    return np.array([np.abs(advantages[batch.groups == label]).max() for label in batch.groups])[:, None]


SHARE = "advantage_positive_fraction"  # where an advantage is 0 but for its rounding, it may be either


def assert_same(actual, expected, exactly=True):
    """Equal advantages, weights and metrics; NaN equals NaN."""
    assert actual.metrics.keys() == expected.metrics.keys()
    pairs = [*zip(actual[:2], expected[:2], strict=True)]
    pairs += [
        (value, expected.metrics[name]) for name, value in actual.metrics.items() if name != SHARE or exactly
    ]
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=0 if exactly else 1e-5, atol=0 if exactly else 1e-6)


def small_batch(rewards=(1, 0, 0, 0), length=3, **fields):
    """One group; every response has `length` tokens."""
    rows = len(rewards)
    rng = np.random.default_rng(0)
    given = {
        "rewards": np.array(rewards, np.float32),
        "groups": np.zeros(rows, np.int64),
        "mask": np.ones((rows, length), bool),
        "normalized_entropy": rng.uniform(size=(rows, length)).astype(np.float32),
        "deviation": rng.uniform(size=(rows, length)).astype(np.float32),
        "baseline_rewards": np.zeros(rows, np.float32),
        "token_rewards": rng.normal(size=(rows, length)).astype(np.float32),
        "turns": np.tile(np.arange(length) // 2, (rows, 1)),
        "log_probs": rng.uniform(-3, 0, size=(rows, length)).astype(np.float32),
        "reference_log_probs": -rng.exponential(size=(rows, length)).astype(np.float32),
        "extra": {
            "values": rng.normal(size=(rows, length)).astype(np.float32),
            "sum_squares": rng.uniform(size=(rows, length)).astype(np.float32),
            "states": rng.integers(0, 2, (rows, length)),
            "teacher_log_probs": -rng.exponential(size=(rows, length)).astype(np.float32),
            "planning": rng.random((rows, length)) < 0.5,
        },
    }
    return Rollouts(**(given | fields))


# Cached, because JAX compiles anew for a function whose equals have all been collected.
@cache
def with_eps(estimator, eps):
    if "eps" not in type(estimator).model_fields:  # without eps the result itself is invariant
        return estimator
    return type(estimator)(**estimator.model_dump() | {"eps": eps})


@cache
def keep(estimator):
    return estimator.keep


@cache
def advantages_and_credit(estimator):
    """A function of rollouts: A_i [N], and the credit A_i w and weights w [N, T]."""

    def function(rollouts):
        alone = estimator.advantages(prepare_rollouts(estimator.name, rollouts, estimator.needs))
        return alone, *estimator(rollouts)[:2]

    return function


# --- against the formulas --------------------------------------------------------------------------------


@every(SETTINGS)
@examples
@given(batch=strategies.rollouts())
def test_equals_the_oracle(library, estimator, batch):
    if library.name == "jax":  # one program, not two: with and without the field
        batch = batch._replace(valid=np.array(oracle.valid_rows(batch)))
    if mixed := adds_to_rewards(estimator):
        with np.errstate(invalid="ignore"):  # what is infinite becomes NaN, and stays invalid
            batch = batch._replace(rewards=np.fmod(batch.rewards, np.float32(8)))
    advantages, expected, weights, metrics = oracle.estimate(estimator, batch)
    actual = run(library, estimator, batch, quick=False)
    outside = ~(batch.mask & np.array(oracle.valid_rows(batch))[:, None])
    assert (actual.advantages[outside] == 0).all()
    assert (actual.weights[outside] == 0).all()
    assert_close(actual.weights, weights)
    if estimator.row_local:
        unit = compared_unit(estimator, batch, advantages)
        if estimator.name in SOFT:  # shares near 1, each rounded, over eps
            unit = np.maximum(unit, 1.0)
        assert_close(actual.advantages, expected, unit * np.maximum(weights, 1.0))
    else:  # statistics over the batch's tokens sum more, and of larger numbers
        assert_close(actual.advantages, expected, rtol=1e-3 if mixed else 1e-4)
    assert actual.metrics.keys() == metrics.keys()
    largest = max(1.0, np.abs(expected).max())
    for name, value in metrics.items():
        assert actual.metrics[name].shape == ()
        found, unit = actual.metrics[name], max(1.0, metrics["weight_max"])
        if name == SHARE:
            assert_share(found, expected[~outside], rounding=1e-5 * largest)
        elif name == "advantage_std" and not estimator.redistributes:
            # As below: A_i w has the spread of w.
            assert_close(found**2, value**2, largest**2)
        elif name.startswith("advantage_"):
            assert_close(found, value, largest, rtol=1e-5 if estimator.row_local else 1e-4)
        elif name == "weight_std" and not estimator.redistributes:
            # Squares are summed about 1, from which the weights may be far.
            assert_close(found**2, value**2, unit)
        else:
            assert_close(found, value, unit)


@on_numpy()
@examples
@given(batch=strategies.rollouts())
def test_keep_equals_the_oracle(library, estimator, batch):
    kept = library.numpy(library.quick(keep(estimator))(arrays(library, batch)))
    assert kept.dtype == bool
    assert kept.tolist() == oracle.keep(estimator, batch)


# --- rows, groups and padding ----------------------------------------------------------------------------


@on_numpy()
@examples
@given(batch=strategies.rollouts(), seed=strategies.seeds)
def test_padding_is_inert(library, estimator, batch, seed):
    keep = batch.mask & np.array(oracle.valid_rows(batch))[:, None]
    other = strategies.fill(batch, keep, seed)
    result = run(library, estimator, batch)
    assert_same(run(library, estimator, other), result)
    assert (result.advantages[~keep] == 0).all()
    assert (result.weights[~keep] == 0).all()


@on_numpy()
@examples
@given(batch=strategies.rollouts(), order=st.permutations(range(N)))
def test_permuting_rows_permutes_the_result(library, estimator, batch, order):
    result = run(library, estimator, batch)
    permuted = run(library, estimator, strategies.take(batch, order))
    expected = result._replace(advantages=result.advantages[order], weights=result.weights[order])
    assert_same(permuted, expected, exactly=False)


@on_numpy()
@examples
@given(batch=strategies.rollouts(), new_names=st.permutations(range(N)))
def test_group_labels_are_names(library, estimator, batch, new_names):
    renamed = batch._replace(groups=np.array(new_names)[batch.groups])
    assert_same(run(library, estimator, renamed), run(library, estimator, batch))


@on_numpy(also=["torch"], everywhere=["dgpo"])
@examples
@given(batch=strategies.rollouts(invalid=False), gone=st.integers(0, N - 1), by_field=st.booleans())
def test_an_invalid_row_is_as_if_deleted(library, estimator, batch, gone, by_field):
    there = np.arange(N) != gone
    deleted = strategies.dense(strategies.take(batch._replace(valid=None), there))
    if by_field:
        batch = batch._replace(valid=there)
    else:
        batch = batch._replace(rewards=np.where(there, batch.rewards, np.float32("nan")), valid=None)
    actual, expected = (run(library, estimator, given, quick=False) for given in (batch, deleted))
    assert (actual.advantages[gone] == 0).all()
    assert (actual.weights[gone] == 0).all()
    assert actual.metrics["invalid_rows"] == 1
    siblings = actual._replace(advantages=actual.advantages[there], weights=actual.weights[there])
    counted = expected._replace(metrics=expected.metrics | {"invalid_rows": np.float32(1)})
    assert_same(siblings, counted, exactly=False)
    if estimator.row_local and library.name != "array_api_strict":  # its sums pair the terms by position
        np.testing.assert_array_equal(siblings.advantages, expected.advantages)
        np.testing.assert_array_equal(siblings.weights, expected.weights)


@on_numpy(RELATIVE, everywhere=["grpo"])
def test_fewer_than_two_valid_rows_give_zero(library, estimator):
    batch = small_batch((3.0, np.nan, 2.0, np.inf), groups=np.array([0, 0, 1, 2]))
    result = run(library, estimator, batch)
    assert (result.advantages == 0).all()
    assert result.metrics["invalid_rows"] == 2


@on_numpy(BY_REWARD, also=["torch"], everywhere=["grpo", "dr_grpo", "rloo"])
@pytest.mark.parametrize(("count", "reward"), [(64, 0.7), (7, 0.1)])
def test_equal_rewards_give_exactly_zero(library, estimator, count, reward):
    for offset in (0.0, 0.3, 100.0, 1e4):
        result = run(library, estimator, small_batch([reward + offset] * count))
        assert (result.advantages == 0).all()
        assert result.metrics["zero_variance_groups"] == 1


@on_numpy(everywhere=["grpo"])
def test_huge_rewards_keep_their_differences(library, estimator):
    """Squares of 1e20 do not fit into float32; another group's ordinary rewards are none the worse."""
    rewards, groups = (1e20, 0, 3e20, 0, 1, 0, 3, 0), np.array([0] * 4 + [1] * 4)
    batch = small_batch(rewards, groups=groups)
    expected = oracle.estimate(estimator, batch)[1]
    actual = run(library, estimator, batch).advantages
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@on_numpy()
def test_an_empty_response_gets_zero_but_its_reward_counts(library, estimator):
    mask = np.ones((4, 3), bool)
    mask[0] = False
    result = run(library, estimator, small_batch((1, 0, 0, 0), mask=mask))
    expected = oracle.estimate(estimator, small_batch((1, 0, 0, 0), mask=mask))[1]
    assert (result.advantages[0] == 0).all()
    np.testing.assert_allclose(result.advantages, expected, rtol=1e-5, atol=1e-6)
    assert result.metrics["invalid_rows"] == 0


@on_numpy(everywhere=["dgpo"])
def test_a_batch_without_any_token_or_valid_row_is_finite(library, estimator):
    for batch in (small_batch(mask=np.zeros((4, 3), bool)), small_batch((np.nan,) * 4)):
        result = run(library, estimator, batch)
        assert (result.advantages == 0).all()
        assert all(np.isfinite(value) for value in result.metrics.values())


# --- traits ----------------------------------------------------------------------------------------------


@on_numpy(having("shift_invariant"))
@examples
@given(
    batch=strategies.rollouts(offsets=(0.0,)), shifts=st.lists(st.integers(-64, 64), min_size=N, max_size=N)
)
def test_a_constant_added_to_a_group_changes_nothing(library, estimator, batch, shifts):
    exact = np.round(batch.rewards * 8) / 8
    batch = batch._replace(rewards=exact.astype(np.float32))
    shifted = batch._replace(rewards=(exact + np.array(shifts)[batch.groups]).astype(np.float32))
    assert_same(run(library, estimator, shifted), run(library, estimator, batch), exactly=False)


@on_numpy(having("scale_invariant"))
@pytest.mark.parametrize(("factor", "eps"), [(0.25, 1e-2), (4.0, 4e-2)])  # two programs serve both
@examples
@given(batch=strategies.rollouts(by_field=True))
def test_a_factor_is_another_eps(library, estimator, factor, eps, batch):
    scaled = batch._replace(rewards=batch.rewards * np.float32(factor))
    expected = run(library, with_eps(estimator, eps / factor), batch)
    assert_same(run(library, with_eps(estimator, eps), scaled), expected, exactly=False)


@on_numpy(having("redistributes", SETTINGS))
@examples
@given(batch=strategies.rollouts(by_field=True))
def test_the_credit_of_a_response_is_kept(library, estimator, batch):
    assert_credit_is_kept(library, estimator, batch)


@on_numpy(having("redistributes"), everywhere=["dgpo"])
def test_the_credit_of_a_long_response_is_kept(library, estimator):
    batch = small_batch(np.linspace(-1, 1, 16) ** 3, length=4096)
    assert_credit_is_kept(library, estimator, batch)


def assert_credit_is_kept(library, estimator, batch):
    both = advantages_and_credit(estimator)
    alone, credited, weights = map(library.numpy, library.quick(both)(arrays(library, batch)))
    lengths = np.array([len(tokens) for tokens in oracle.chosen(batch)], np.float64)
    np.testing.assert_allclose(weights.sum(axis=1, dtype=np.float64), lengths, rtol=3e-7)
    np.testing.assert_allclose(credited.sum(axis=1, dtype=np.float64), lengths * alone, rtol=3e-7)


@on_numpy(having("row_local", SETTINGS), also=["torch"], everywhere=["dgpo"])
@examples
@given(batch=strategies.rollouts(by_field=True), rows=st.lists(st.integers(0, N - 1), min_size=3, max_size=3))
def test_weights_of_a_slice_are_the_slice_of_the_weights(library, estimator, batch, rows):
    part = strategies.dense(strategies.take(batch, rows))
    whole, part = (run(library, estimator, given, quick=False).weights for given in (batch, part))
    np.testing.assert_array_equal(part, whole[rows])


# --- limits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["tau", "deviation"])
@examples
@given(batch=strategies.rollouts())
def test_dgpo_at_its_limits_is_grpo_exactly(library, limit, batch):
    if limit == "deviation":
        batch = batch._replace(deviation=np.zeros_like(batch.deviation))
    dgpo = run(library, INFINITE_TAU if limit == "tau" else DGPO(), batch, quick=False)
    grpo = run(library, GRPO(), batch, quick=False)
    np.testing.assert_array_equal(dgpo.advantages, grpo.advantages)
    np.testing.assert_array_equal(dgpo.weights, grpo.weights)


def test_equal_scores_give_weights_of_exactly_one(library):
    """e / sum(e) * T would miss 1 at T = 49 and others."""
    lengths = np.arange(1, 129)
    mask = np.arange(128) < lengths[:, None]
    score = np.full(mask.shape, 0.3, np.float32)
    spread = library.call(partial(credit.tokens.redistribute, tau=0.5))
    weights = library.numpy(spread(library.asarray(score), library.asarray(mask)))
    np.testing.assert_array_equal(weights, mask)


def test_scores_may_be_negative_and_padding_anything(library):
    """Log-probs as scores, say: the largest is far below 0, and weights are 2 * (1/4, 3/4)."""
    score = np.array([[-900.0, -900.0 + np.log(3), np.nan], [np.inf, -5.0, -5.0]], np.float32)
    mask = np.array([[1, 1, 0], [0, 1, 1]], bool)
    spread = library.call(partial(credit.tokens.redistribute, tau=1.0))
    weights = library.numpy(spread(library.asarray(score), library.asarray(mask)))
    np.testing.assert_allclose(weights, [[0.5, 1.5, 0], [0, 1, 1]], rtol=1e-4)


def test_certain_tokens_leave_the_optimal_baseline_among_the_returns(library):
    """There 1 - 2 p + sum p^2 is rounding, of either sign in float32."""
    given = small_batch((1, 0, 0.5, 0.25), log_probs=np.full((4, 3), -1e-8, np.float32))
    squares = np.float32(1) + np.float32(2e-7) * np.array([[-1, 1, 0], [1, -1, 1], [0, 0, 0], [1, 1, -1]])
    given = given._replace(extra={"sum_squares": squares.astype(np.float32)})
    advantages = run(library, credit.OTB(), given).advantages
    assert (np.abs(advantages) <= 1).all()
    np.testing.assert_allclose(advantages[0] - advantages[1], 1, rtol=1e-6)


def test_equal_steps_ahead_are_equal_however_long_they_are(library):
    """Seven steps from one state each, and equal rewards after them: what a discount rounds must not differ."""
    ends = [[2, 3, 9, 11, 12, 20], [1, 8, 10, 13, 17, 18], [5, 6, 7, 12, 21, 22]]
    turns = (np.arange(24) >= np.array(ends)[:, :, None]).sum(axis=1)
    rewards = np.full(3, 1e4 / 3, np.float32)
    given = Rollouts(rewards, np.zeros(3, int), np.ones((3, 24), bool), turns=turns, extra={"states": turns})
    assert (run(library, credit.GiGPO(), given).advantages == 0).all()


BY_SCORE = [estimator for estimator in having("redistributes") if estimator.name != "grpo_s"]


@on_numpy(BY_SCORE, everywhere=["dgpo"])
@pytest.mark.parametrize("field", ["deviation", "normalized_entropy"])
def test_a_nan_score_spoils_only_its_own_response(library, estimator, field):
    batch = small_batch()
    clean = run(library, estimator, batch)
    scores = getattr(batch, field).copy()
    scores[1, 2] = np.nan
    spoilt = run(library, estimator, batch._replace(**{field: scores}))
    others = [0, 2, 3]
    np.testing.assert_array_equal(spoilt.advantages[others], clean.advantages[others])
    assert np.isnan(spoilt.advantages[1]).all() == (field in estimator.needs)


def test_a_nan_entropy_takes_its_response_out_of_grpo_s(library):
    batch = small_batch()
    entropy = batch.normalized_entropy.copy()
    entropy[1, 2] = np.nan
    spoilt = run(library, GRPOS(), batch._replace(normalized_entropy=entropy)).advantages
    without = run(library, GRPOS(), batch._replace(valid=np.array([True, False, True, True]))).advantages
    assert np.isnan(spoilt[1]).all()
    np.testing.assert_array_equal(spoilt[[0, 2, 3]], without[[0, 2, 3]])


@on_numpy(everywhere=["dgpo"])
def test_the_mask_may_be_of_any_type(library, estimator):
    batch = small_batch(mask=np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1]], bool))
    expected = run(library, estimator, batch)
    exact = library.name != "jax"  # XLA fuses each program its own way
    for dtype in (np.int32, np.float32):
        assert_same(run(library, estimator, batch._replace(mask=batch.mask.astype(dtype))), expected, exact)


# --- types, devices, gradients ---------------------------------------------------------------------------


def as_dtype(library, array, kind):
    """The numpy array as one of the library's of that dtype, which numpy may lack."""
    if library.name == "torch":
        import torch

        return torch.from_numpy(array).to(getattr(torch, kind))
    if library.name == "jax":
        import jax

        return jax.numpy.asarray(array).astype(getattr(jax.numpy, kind))
    return library.asarray(array.astype(kind))


KINDS = {
    "numpy": ("float16", "float32", "int32", "int64", "float64"),
    "torch": ("bfloat16", "float16", "float32", "int32", "int64", "float64"),
    "jax": ("bfloat16", "float16", "float32", "int32"),
    "array_api_strict": ("float32", "int32", "int64", "float64"),
}


@on_numpy(also=["torch", "strict"], everywhere=["dgpo"])
def test_results_are_float32_but_for_float64_rewards(library, estimator):
    batch = small_batch()
    expected = run(library, estimator, batch)
    for kind in KINDS[library.name]:
        given = arrays(library, batch)._replace(rewards=as_dtype(library, batch.rewards, kind))
        result = library.quick(estimator)(given)
        for array in (result.advantages, result.weights, *result.metrics.values()):
            assert str(array.dtype).split(".")[-1] == ("float64" if kind == "float64" else "float32")
        np.testing.assert_allclose(library.numpy(result.advantages), expected.advantages, rtol=1e-5)


@every(NAMED)
def test_low_precision_statistics_are_computed_with_in_float32(estimator):
    torch = pytest.importorskip("torch")
    batch = small_batch()
    given = map_arrays(torch.from_numpy, batch)
    low = {name: getattr(given, name).bfloat16() for name in ("deviation", "normalized_entropy")}
    result = estimator(given._replace(**low))
    upcast = estimator(given._replace(**{name: array.float() for name, array in low.items()}))
    assert result.advantages.dtype == torch.float32
    assert torch.equal(result.advantages, upcast.advantages)


@every(NAMED)
def test_the_device_is_kept(estimator):
    torch = pytest.importorskip("torch")
    batch = map_arrays(lambda array: torch.from_numpy(array).to("meta"), small_batch())
    result = estimator(batch)
    for array in (result.advantages, result.weights, estimator.keep(batch), *result.metrics.values()):
        assert array.device.type == "meta"


@every(NAMED)
def test_no_torch_gradient_flows_through_a_result(estimator):
    torch = pytest.importorskip("torch")
    batch = map_arrays(torch.from_numpy, small_batch())
    floating = ("rewards", "deviation", "normalized_entropy")
    batch = batch._replace(**{name: getattr(batch, name).requires_grad_() for name in floating})
    result = estimator(batch)
    assert not any(a.requires_grad for a in (result.advantages, result.weights, *result.metrics.values()))


@every(NAMED)
def test_no_jax_gradient_flows_through_a_result(estimator):
    jax = pytest.importorskip("jax")
    batch = map_arrays(jax.numpy.asarray, small_batch())

    def total(rewards, deviation, entropy):
        given = batch._replace(rewards=rewards, deviation=deviation, normalized_entropy=entropy)
        result = estimator(given)
        return sum(x.sum() for x in (result.advantages**2, result.weights**2, *result.metrics.values()))

    gradient = quick_jit(jax.grad(total, argnums=(0, 1, 2)))
    gradients = gradient(batch.rewards, batch.deviation, batch.normalized_entropy)
    assert all((gradient == 0).all() for gradient in gradients)


# Dynamo takes seconds for each. That none reads a value is seen on the meta device too, so these few are
# enough: one of each way to weigh tokens, or to be no product.
TRACED = ("dgpo", "gdpo", "gigpo", "gtpo", "mt_grpo", "reinforce_plus_plus", "top_entropy")


@pytest.mark.parametrize(
    "estimator",
    [pytest.param(e, id=label(e), marks=() if e.name in TRACED else pytest.mark.slow) for e in NAMED],
)
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_runs_compiled_by_torch_without_a_break(estimator):
    torch = pytest.importorskip("torch")
    batch = map_arrays(torch.from_numpy, small_batch())
    torch.compiler.reset()
    compiled = torch.compile(estimator, fullgraph=True, backend="eager")(batch)
    eager = estimator(batch)
    torch.testing.assert_close(compiled.advantages, eager.advantages)
    torch.testing.assert_close(compiled.metrics, eager.metrics)


@every(NAMED)
def test_runs_under_vmap(estimator):
    jax = pytest.importorskip("jax")
    batches = [small_batch(rewards) for rewards in ((1, 0, 0, 0), (0.5, 2, -1, 2))]
    stacked = jax.tree.map(lambda *fields: jax.numpy.stack(fields), *batches)
    result = quick_jit(jax.vmap(estimator))(stacked)
    for i, batch in enumerate(batches):
        np.testing.assert_allclose(result.advantages[i], oracle.estimate(estimator, batch)[1], rtol=1e-5)


# --- DGPO's settings and metrics -------------------------------------------------------------------------


def test_kappa_zero_needs_no_entropy(library):
    batch = small_batch(normalized_entropy=None)
    estimator = DGPO(kappa=0)
    assert estimator.needs == ("deviation",)
    np.testing.assert_allclose(
        run(library, estimator, batch).advantages, oracle.estimate(estimator, batch)[1], rtol=1e-5
    )


@pytest.mark.parametrize("library", ["numpy", "torch"], indirect=True)
def test_the_weight_metrics_show_how_far_dgpo_is_from_grpo(library):
    batch = small_batch(length=500)
    batch = batch._replace(deviation=batch.deviation * np.float32(1e-3))
    spreads = [run(library, DGPO(tau=tau), batch).metrics for tau in (0.5, 0.05, 1e-3, 1e-5)]
    expected = [oracle.estimate(DGPO(tau=tau), batch)[3] for tau in (0.5, 0.05, 1e-3, 1e-5)]
    deviations = [float(m["weight_std"]) for m in spreads]
    assert deviations == sorted(deviations)
    assert 1e-4 < deviations[0] < 1e-3  # GRPO in disguise, and the std still says how much
    assert spreads[-1]["effective_token_fraction"] < 0.02
    np.testing.assert_allclose(deviations, [m["weight_std"] for m in expected], rtol=1e-3)
