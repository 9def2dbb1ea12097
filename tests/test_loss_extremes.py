"""PolicyLoss far from the clip range: finite, without gradient where a token is held back, else the formula's."""

from itertools import product

import loss_oracle
import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from strategies import examples

from credit import PolicyLoss

AGGREGATIONS = ("token_mean", "sequence_mean", "sequence_sum", "fixed_horizon")
SEQUENCE = {"ratio": "sequence", "clip_low": 0.2, "clip_high": 0.2}
CHOICES = (
    ({}, {"dual_clip": 3.0}, {"objective": "cispo"}),
    ({}, SEQUENCE),
    tuple({"aggregation": n, "horizon": 7 if n == "fixed_horizon" else None} for n in AGGREGATIONS),
    ({}, *({"kl": kind, "kl_coefficient": 0.1} for kind in ("k1", "k2", "k3"))),
    ({}, {"rollout_cap": 2.0}),
)
CLIPS = {"clip_low": 0.1, "clip_high": 0.3}
WIDE = {"covariance_low": -1e30, "covariance_high": 1e30, "covariance_fraction": 0.5}
FURTHER = (
    (
        *({"objective": "sapo", "ratio": kind} for kind in ("token", "sequence")),
        {"objective": "sapo", "temperature_positive": 100.0, "temperature_negative": 0.01},
        {"objective": "vespo"},
        {"objective": "vespo", "kernel_positive": (100.0, 0.01), "kernel_negative": (0.01, 100.0)},
        {"objective": "gmpo", **CLIPS},
        {"objective": "gmpo", "clip_low": 1.0, "clip_high": float("inf")},
        {"objective": "dppo_tv", **CLIPS},
        {"objective": "dppo_kl", **CLIPS, "ratio_cap": 3.0},
        {"objective": "clip_cov", **WIDE},
        {"objective": "kl_cov", "covariance_fraction": 0.5},
    ),
    (
        {"kl": "k2", "kl_coefficient": 0.1, "aggregation": "token_mean"},
        {"rollout_rule": "mask", "rollout_floor": 0.5, "rollout_cap": 5.0},
        {"rollout_level": "sequence", "rollout_cap": 2.0},
    ),
)
EVERY_LOSS = [
    PolicyLoss(**{k: v for part in parts for k, v in part.items()})
    for parts in (*product(*CHOICES), *product(*FURTHER))
]
SHAPE = (2, 3)
SIZES = (0.0, 0.1, 5.0, 19.9, 21.1, 88.8, 710.0, 1e11, 1e19, np.inf)  # infinity: the type's largest number
NAMES = ("log_probs", "old_log_probs", "reference_log_probs", "rollout_log_probs")
KINDS = {"numpy": ("f4", "f8"), "torch": ("f4", "f8"), "jax": ("f4",), "array_api_strict": ("f4", "f8")}


def limit(arrays, kind):
    """The arrays in that type, with its largest number for infinity."""
    largest = np.finfo(kind).max
    return {name: np.clip(array, -largest, largest).astype(kind) for name, array in arrays.items()}


def make_grid():
    """Every pair of log-probs and every sign of the advantage, each beside one usual token [N, 2]."""
    new, old, advantage = (np.ravel(a) for a in np.meshgrid(SIZES, SIZES, (1.0, 0.0, -1.0)))
    usual = np.full_like(new, 0.5)
    columns = new, old, np.roll(old, 7), np.roll(new, 11)
    arrays = {name: -np.stack([c, usual], axis=1) for name, c in zip(NAMES, columns, strict=True)}
    return arrays | {"advantages": np.stack([advantage, usual], axis=1)}


def differentiate(library, loss, given):
    """The loss, its metrics and its gradient in log_probs as numpy arrays; None without gradients."""
    arrays = {name: library.asarray(array) for name, array in given.items()}
    arrays["mask"] = library.asarray(np.ones(given["log_probs"].shape, bool))
    new, gradient = arrays.pop("log_probs"), None
    if library.name == "jax":
        import jax

        call = jax.value_and_grad(lambda z: loss(z, **arrays), has_aux=True)
        (value, metrics), gradient = call(new)
    elif library.name == "torch":
        value, metrics = loss(new.requires_grad_(), **arrays)
        value.backward()
        gradient = new.grad
    else:
        value, metrics = loss(new, **arrays)
    metrics = {name: library.numpy(metric) for name, metric in metrics.items()}
    return library.numpy(value), metrics, None if gradient is None else library.numpy(gradient)


def check_finite(library, loss, given):
    value, metrics, gradient = differentiate(library, loss, given)
    assert np.isfinite(value), loss
    assert gradient is None or np.isfinite(gradient).all(), loss
    assert [name for name, metric in metrics.items() if not np.isfinite(metric)] == [], loss


def draw_column(values):
    return st.lists(values, min_size=6, max_size=6).map(lambda drawn: np.reshape(drawn, SHAPE))


@st.composite
def batches(draw):
    """Finite numbers, and -inf, which engines and masked logits give."""
    finite = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(SIZES).map(lambda x: -x)
    arrays = {name: draw(draw_column(finite)) for name in NAMES}
    arrays["advantages"] = draw(draw_column(st.sampled_from((0.0, 1.0, -1.0)) | st.floats(-1e20, 1e20)))
    truncated = {name: draw(draw_column(st.booleans())) & draw(st.booleans()) for name in NAMES}
    return arrays, truncated


@examples
@drawn(batch=batches(), loss=st.sampled_from(EVERY_LOSS))
def test_loss_metrics_and_gradient_are_finite(library, loss, batch):
    arrays, truncated = batch
    for kind in KINDS[library.name]:
        given = limit(arrays, kind)
        lowest = np.asarray(-np.inf, kind)
        check_finite(
            library, loss, given | {n: np.where(bad, lowest, given[n]) for n, bad in truncated.items()}
        )


@pytest.mark.parametrize("library", ["numpy", "torch"], indirect=True)
def test_all_settings_are_finite_on_all_pairs_of_extremes(library):
    for loss, kind in product(EVERY_LOSS, KINDS[library.name]):
        check_finite(library, loss, limit(make_grid(), kind))


@pytest.mark.parametrize("settings", [{}, {"dual_clip": 3.0}, SEQUENCE], ids=str)
@pytest.mark.parametrize("library", ["torch", "jax"], indirect=True)
def test_a_token_that_is_held_back_has_gradient_exactly_zero(library, settings):
    """And every other token that of -rho A; each token is a response, so both ratios are its own."""
    given = {name: array[:, :1] for name, array in limit(make_grid(), "f4").items()}
    loss = PolicyLoss(aggregation="token_mean", **settings)
    gradient = differentiate(library, loss, given)[2]
    advantage = given["advantages"].astype(np.float64)
    x = np.subtract(*(np.clip(given[name].astype(np.float64), -1e12, 0.0) for name in NAMES[:2]))
    bad = advantage < 0
    held = (advantage == 0) | (x > 20) | np.where(bad, x < np.log(0.8), x > np.log(1.2))
    if loss.dual_clip:
        held |= bad & (x > np.log(loss.dual_clip))
    held |= np.abs(given["log_probs"]) > 1e12
    np.testing.assert_array_equal(gradient[held], 0.0)
    slope = -np.exp(x[~held]) * advantage[~held] / x.size
    np.testing.assert_allclose(gradient[~held], slope, rtol=1e-5, atol=1e-38)
    assert (slope.max() > 1e4) == (loss.dual_clip is None)


@pytest.mark.parametrize("far", [-21.1, -np.inf])
def test_the_metrics_say_that_a_ratio_is_at_the_bound(library, far):
    given = {name: np.full(SHAPE, -1.0, np.float32) for name in (*NAMES, "advantages")}
    given["old_log_probs"][0, 1] = given["rollout_log_probs"][1, 1] = far
    value, metrics, _ = differentiate(library, PolicyLoss(), given)
    bound = np.exp(20.0)
    np.testing.assert_allclose([metrics["ratio_max"], metrics["rollout_ratio_max"]], bound, rtol=1e-6)
    np.testing.assert_allclose(metrics["approx_kl"], (bound - 21.0) / 6, rtol=1e-6)
    np.testing.assert_allclose(value, (5.0 + bound) / 6, rtol=1e-6)


FORMULAS = [PolicyLoss(), PolicyLoss(dual_clip=3.0, kl_coefficient=0.1, aggregation="token_mean")]


@pytest.mark.parametrize("loss", FORMULAS, ids=["clip", "dual clip and k3"])
@examples
@drawn(
    moves=st.lists(draw_column(st.floats(-60.0, 19.9)), min_size=3, max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_up_to_a_log_ratio_of_20_nothing_changes(library, loss, moves, seed):
    new = np.full(SHAPE, -70.0)
    old = new - moves[0]
    columns = (column.astype("f4") for column in (new, old, new + moves[1], old - moves[2]))
    given = dict(zip(NAMES, columns, strict=True))
    given["advantages"] = np.random.default_rng(seed).normal(size=SHAPE).astype("f4")
    value, metrics, _ = differentiate(library, loss, given)
    new, old, reference, rollout = (given[name] for name in NAMES)
    mask = np.ones(SHAPE, bool)
    right, right_metrics = loss_oracle.policy_loss(
        loss, new, old, given["advantages"], mask, reference, rollout
    )
    np.testing.assert_allclose(value, right, rtol=1e-5, atol=1e-5)
    assert metrics.keys() == right_metrics.keys()
    for name, metric in metrics.items():
        np.testing.assert_allclose(metric, right_metrics[name], rtol=1e-5, atol=1e-5, err_msg=name)
