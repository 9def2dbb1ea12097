"""The advantages by their factors A_i and w, and the returns of estimators that have them."""

from typing import Literal

import numpy as np
import oracle
import pytest
import strategies
from hypothesis import given
from named import NAMES, make
from running import arrays, quick_jit
from strategies import examples

import credit
from credit import DGPO, GRPO, ReinforcePlusPlus, Rollouts
from credit.backends import limits
from credit.fields import map_arrays

ESTIMATORS = [make(name) for name in NAMES]
SETTINGS = [DGPO(tau=0.05, within="turn"), DGPO(effective_fraction=0.5, negative="inverse")]
PRODUCTS = [estimator for estimator in ESTIMATORS if estimator.is_product] + SETTINGS
OTHERS = [estimator for estimator in ESTIMATORS if not estimator.is_product]
eager = pytest.mark.parametrize("library", ["numpy", "torch"], indirect=True)


def every(estimators):
    return pytest.mark.parametrize("estimator", estimators, ids=lambda estimator: estimator.name)


def in_type(batch, kind):
    """The batch with its floats in that type."""
    return map_arrays(lambda array: array.astype(kind) if array.dtype.kind == "f" else array, batch)


def in_twos(patch):
    """Blocks of two rows."""
    patch.setattr(limits, "CPU_ROW_BLOCK_ENTRIES", 2 * strategies.T + 1)


@pytest.mark.filterwarnings("ignore:effective_fraction is missed")
@eager
@every(PRODUCTS)
@pytest.mark.parametrize(("kind", "blocks"), [("float32", False), ("float32", True), ("float64", True)])
@examples
@given(batch=strategies.rollouts())
def test_the_product_of_the_factors_is_the_advantages(library, estimator, kind, blocks, batch):
    given = arrays(library, in_type(batch, kind))
    with pytest.MonkeyPatch.context() as patch:
        if blocks:
            in_twos(patch)
        result, (alone, weights) = estimator(given), estimator.factors(given)
    assert alone.shape == batch.rewards.shape
    assert alone.dtype == weights.dtype == result.advantages.dtype
    assert type(alone) is type(weights) is type(result.advantages)
    alone, weights = library.numpy(alone), library.numpy(weights)
    np.testing.assert_array_equal(weights, library.numpy(result.weights))
    np.testing.assert_array_equal(alone[:, None] * weights, library.numpy(result.advantages))
    assert (alone[~np.array(oracle.valid_rows(batch))] == 0).all()


@every([DGPO(), credit.TopEntropy()])  # in blocks where it is eager, and not
def test_a_row_that_is_lost_under_jit_has_no_advantage(estimator):
    jax = pytest.importorskip("jax")
    rng = np.random.default_rng(0)
    fields = {name: rng.random((4, 3), np.float32) for name in ("deviation", "normalized_entropy")}
    fields |= {"turns": np.zeros((4, 3), int), "baseline_rewards": np.zeros(4, np.float32)}
    batch = Rollouts(np.arange(4.0), np.array([0, 0, 0, 7]), np.ones((4, 3), bool), **fields)
    batch = jax.tree.map(jax.numpy.asarray, batch)
    alone, weights = quick_jit(estimator.factors)(batch)
    assert np.isnan(alone).tolist() == [False, False, False, True]
    spread = quick_jit(estimator)(batch).advantages
    np.testing.assert_allclose((alone[:, None] * weights)[:3], spread[:3], rtol=1e-6)
    assert np.isnan(spread[3]).all()


@eager
def test_a_row_without_a_finite_advantage_has_none_where_it_has_tokens(library):
    batch = strategies.Rollouts(
        rewards=np.array([1, 0, 1, 0], np.float32),
        groups=np.zeros(4, int),
        mask=np.array([[1, 1, 0]] * 4, bool),
        normalized_entropy=np.array([[0.1, 0.2, 9], [np.nan, 1, 9], [0, 0, 9], [1, 0, 9]], np.float32),
    )
    alone, weights = map(library.numpy, credit.GRPOS().factors(arrays(library, batch)))
    assert np.isnan(alone).tolist() == [False, True, False, False]
    spread = library.numpy(credit.GRPOS()(arrays(library, batch)).advantages)
    inside = batch.mask
    np.testing.assert_array_equal((alone[:, None] * weights)[inside], spread[inside])


@every(OTHERS)
def test_what_is_no_product_has_no_factors(estimator):
    batch = Rollouts(np.arange(4.0), np.zeros(4, int), np.ones((4, 3), bool))
    with pytest.raises(ValueError, match=f"{estimator.name} computes advantages that are not .* no factors"):
        estimator.factors(batch)


@pytest.mark.parametrize("method", ["assign", "__call__"])
def test_a_subclass_that_computes_the_whole_is_no_product(method):
    kind = type("Whole", (GRPO,), {method: lambda self, rollouts: getattr(GRPO, method)(self, rollouts)})
    assert GRPO().is_product
    assert not kind().is_product
    batch = Rollouts(np.arange(4.0), np.zeros(4, int), np.ones((4, 3), bool))
    np.testing.assert_array_equal(kind()(batch).advantages, GRPO()(batch).advantages)


def test_the_whole_is_never_taken_in_blocks(monkeypatch):
    class Centered(GRPO):
        blockwise = True
        name: Literal["centered_by_block"] = "centered_by_block"

        def assign(self, rollouts):
            advantages, weights = super().assign(rollouts)
            return advantages - advantages.mean(), weights

    batch = Rollouts(np.arange(8.0), np.arange(8) // 4, np.ones((8, 6), bool))
    whole = Centered()(batch).advantages
    in_twos(monkeypatch)
    np.testing.assert_array_equal(Centered()(batch).advantages, whole)


@eager
@every(PRODUCTS)
@examples
@given(batch=strategies.rollouts(), seed=strategies.seeds)
def test_advantages_may_be_given(library, estimator, batch, seed):
    """As where rows are a slice of their groups; `negative` weights by the sign of what is given."""
    own = np.random.default_rng(seed).normal(size=strategies.N).astype(np.float32)
    given = arrays(library, batch)
    alone, weights = estimator.factors(given, library.asarray(own))
    valid = np.array(oracle.valid_rows(batch))
    np.testing.assert_array_equal(library.numpy(alone), np.where(valid, own, 0))
    if estimator.name != "dgpo":
        np.testing.assert_array_equal(library.numpy(weights), library.numpy(estimator.factors(given)[1]))
    elif estimator.negative == "same":
        np.testing.assert_array_equal(library.numpy(weights), library.numpy(estimator(given).weights))


def test_given_advantages_are_checked():
    batch = Rollouts(np.arange(4.0), np.zeros(4, int), np.ones((4, 3), bool))
    with pytest.raises(ValueError, match=r"advantages has shape \(3,\); expected \(4,\)"):
        GRPO().factors(batch, np.zeros(3))
    with pytest.raises(ValueError, match="advantages is a list"):
        GRPO().factors(batch, [0, 1, 2, 3])


def test_factors_carry_no_gradient():
    torch = pytest.importorskip("torch")
    rewards = torch.arange(4.0, requires_grad=True)
    field = torch.rand((4, 3), requires_grad=True)
    batch = Rollouts(rewards, torch.zeros(4).long(), torch.ones((4, 3)), deviation=field)
    for own in (None, torch.ones(4, requires_grad=True)):
        assert not any(f.requires_grad for f in DGPO(kappa=0).factors(batch, own))


# --- returns ---------------------------------------------------------------------------------------------


@eager
@pytest.mark.parametrize(
    "settings", [{}, {"gamma": 0.9, "kl_coefficient": 0.1}, {"gamma": 0.9, "rewards_from": "both"}], ids=str
)
@examples
@given(batch=strategies.rollouts())
def test_returns_equal_the_oracle_and_whiten_to_the_advantages(library, settings, batch):
    estimator, given = ReinforcePlusPlus(**settings), arrays(library, batch)
    returns = library.numpy(estimator.returns(given))
    expected = np.zeros(batch.mask.shape)
    for place, value in oracle.running_returns(estimator, batch).items():
        expected[place] = value
    np.testing.assert_allclose(returns, expected, rtol=1e-5, atol=1e-6 * (1 + np.abs(expected).max()))
    mask = batch.mask & np.array(oracle.valid_rows(batch))[:, None]
    whitened = credit.tokens.whiten(library.asarray(returns), library.asarray(mask))
    np.testing.assert_array_equal(library.numpy(whitened), library.numpy(estimator(given).advantages))


@eager
@examples
@given(batch=strategies.rollouts())
def test_returns_of_a_critic_are_its_targets(library, batch):
    estimator = credit.GAE(gamma=0.9, lam=0.8, rewards_from="both")
    returns = library.numpy(estimator.returns(arrays(library, batch)))
    expected = np.zeros(batch.mask.shape)
    for place, value in oracle.sums_of_errors(estimator, batch).items():
        expected[place] = value + batch.extra["values"][place]
    np.testing.assert_allclose(returns, expected, rtol=1e-5, atol=1e-6 * (1 + np.abs(expected).max()))


def test_under_jit_a_lost_row_has_no_returns():
    jax = pytest.importorskip("jax")
    batch = Rollouts(np.arange(4.0), np.array([0, 0, 0, 7]), np.ones((4, 3), bool))
    returns = quick_jit(ReinforcePlusPlus().returns)(jax.tree.map(jax.numpy.asarray, batch))
    np.testing.assert_array_equal(np.isnan(returns).all(axis=1), [False, False, False, True])


@every([e for e in ESTIMATORS if type(e).returns is credit.Estimator.returns])
def test_other_estimators_have_no_returns(estimator):
    assert estimator.returns(Rollouts(np.arange(4.0), np.zeros(4, int), np.ones((4, 3), bool))) is None
