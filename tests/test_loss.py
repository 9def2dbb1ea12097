"""PolicyLoss against the formula, its gradient, and the loss that each estimator's paper prescribes."""

from functools import cache

import loss_oracle
import numpy as np
import pytest
import running
from hypothesis import given as drawn
from hypothesis import strategies as st
from named import NAMES, make
from pydantic import ValidationError
from strategies import examples

from credit import PolicyLoss

N, T = 5, 4
AGGREGATED = [
    *(PolicyLoss(aggregation=name) for name in ("token_mean", "sequence_mean", "sequence_sum")),
    PolicyLoss(aggregation="fixed_horizon", horizon=3),
]
SETTINGS = [
    *AGGREGATED,
    PolicyLoss(clip_low=0.1, clip_high=0.28, dual_clip=1.5, kl_coefficient=0.04),
    PolicyLoss(dual_clip=3.0, aggregation="token_mean"),
    PolicyLoss(aggregation="fixed_horizon", horizon=32, kl_coefficient=1.0),
]


def label(loss):
    return "-".join(f"{k}={v}" for k, v in loss.model_dump(exclude_defaults=True).items()) or "default"


every_setting = pytest.mark.parametrize("loss", SETTINGS, ids=label)
on_numpy = running.on_numpy("loss", SETTINGS, also=["torch"], everywhere=SETTINGS[:1], label=label)
differentiable = pytest.mark.parametrize("framework", ["torch", "jax"])


def draw(seed):
    """Arguments by name as numpy arrays: some responses empty, ratios on both sides of the clip range."""
    rng = np.random.default_rng(seed)
    mask = rng.uniform(size=(N, T)) < 0.7
    mask[rng.integers(N)] = False
    old = -rng.exponential(size=(N, T))
    near = old + rng.normal(scale=0.4, size=(5, N, T)).clip(-1, 1)
    arrays = {
        "log_probs": near[0],
        "old_log_probs": old,
        "advantages": rng.normal(size=(N, T)),
        "mask": mask,
        "reference_log_probs": near[1],
        "rollout_log_probs": near[2],
    }
    return {name: a if a.dtype == bool else a.astype(np.float32) for name, a in arrays.items()}


@cache  # one function per loss, or JAX compiles each
def called(loss):
    def function(given):
        return loss(**given)

    return function


def run(library, loss, given, *, quick=True):
    """(loss, metrics) as numpy arrays, jitted on JAX: unless `quick`, as users do."""
    call = library.quick if quick else library.call
    value, metrics = call(called(loss))({name: library.asarray(a) for name, a in given.items()})
    return library.numpy(value), {name: library.numpy(metric) for name, metric in metrics.items()}


def expected(loss, given, **named):
    new, old, advantages, mask = (given[n] for n in ("log_probs", "old_log_probs", "advantages", "mask"))
    others = given.get("reference_log_probs"), given.get("rollout_log_probs")
    return loss_oracle.policy_loss(loss, new, old, advantages, mask, *others, **named)


@every_setting
@examples
@drawn(seed=st.integers(0, 2**32 - 1))
def test_loss_and_metrics_equal_the_oracle(library, loss, seed):
    given = draw(seed)
    value, metrics = run(library, loss, given, quick=False)
    right, right_metrics = expected(loss, given)
    np.testing.assert_allclose(value, right, rtol=1e-5, atol=1e-6)
    assert value.shape == ()
    assert metrics.keys() == right_metrics.keys()
    for name, metric in metrics.items():
        assert metric.shape == ()
        np.testing.assert_allclose(metric, right_metrics[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_worked_example(library):
    """Ratios 1, 2, 1/2 and 2 with A = 1, 1, -1, -1: the second and the third are clipped."""
    ratios = np.array([[1, 2], [0.5, 2]])
    given = {
        "log_probs": np.log(ratios / 4).astype(np.float32),
        "old_log_probs": np.log(np.full((2, 2), 0.25)).astype(np.float32),
        "advantages": np.array([1, -1], np.float32),
        "mask": np.array([[1, 1], [1, 1]], bool),
    }
    value, metrics = run(library, PolicyLoss(aggregation="token_mean"), given)
    np.testing.assert_allclose(value, (-1 - 1.2 + 0.8 + 2) / 4, rtol=1e-6)
    assert metrics["clip_fraction_high"] == metrics["clip_fraction_low"] == 0.25
    value, metrics = run(library, PolicyLoss(aggregation="token_mean", dual_clip=1.5), given)
    np.testing.assert_allclose(value, (-1 - 1.2 + 0.8 + 1.5) / 4, rtol=1e-6)
    assert metrics["clip_fraction_dual"] == 0.25


def test_the_first_step_is_the_mean_advantage(library):
    given = draw(1)
    value, metrics = run(
        library, PolicyLoss(aggregation="token_mean"), given | {"log_probs": given["old_log_probs"]}
    )
    np.testing.assert_allclose(value, -given["advantages"][given["mask"]].mean(), rtol=1e-5)
    assert metrics["approx_kl"] == metrics["clip_fraction_low"] == metrics["clip_fraction_high"] == 0


@on_numpy
def test_one_advantage_per_response_is_the_same_for_its_tokens(library, loss):
    given = draw(2)
    column = given["advantages"][:, 0]
    spread = np.repeat(column[:, None], T, axis=1)
    one = run(library, loss, given | {"advantages": column}, quick=False)
    each = run(library, loss, given | {"advantages": spread}, quick=False)
    np.testing.assert_array_equal(one[0], each[0])
    assert one[1] == each[1]


def numerical_gradient(loss, given, step=1e-6):
    """Central differences of the oracle."""
    gradient = np.zeros((N, T))
    for place in np.ndindex(N, T):
        moved = []
        for sign in (1, -1):
            new = given["log_probs"].astype(np.float64)
            new[place] += sign * step
            moved.append(expected(loss, given | {"log_probs": new})[0])
        gradient[place] = (moved[0] - moved[1]) / (2 * step)
    return gradient


def gradient(framework, loss, given):
    """The loss's gradient with respect to log_probs, by torch or JAX."""
    module = pytest.importorskip(framework)
    if framework == "torch":
        arrays = {name: module.from_numpy(array) for name, array in given.items()}
        new = arrays.pop("log_probs").clone().requires_grad_()
        loss(new, **arrays)[0].backward()
        return new.grad.numpy()
    arrays = {name: module.numpy.asarray(array) for name, array in given.items()}
    new = arrays.pop("log_probs")
    return np.asarray(module.jit(module.grad(lambda x: loss(x, **arrays)[0]))(new))


@every_setting
@differentiable
def test_the_gradient_is_the_formulas(framework, loss):
    given = draw(3)
    actual = gradient(framework, loss, given)
    np.testing.assert_allclose(actual, numerical_gradient(loss, given), rtol=1e-4, atol=1e-6)
    assert (actual != 0).any()


@on_numpy
def test_nothing_outside_the_mask_matters(library, loss):
    given = draw(4)
    clean, dirty = run(library, loss, given), run(library, loss, garbled(given))
    np.testing.assert_array_equal(clean[0], dirty[0])
    assert clean[1] == dirty[1]


@on_numpy
def test_columns_of_padding_change_nothing(library, loss):
    given, wide = draw(4), {}
    for name, array in given.items():
        padding = np.zeros if name == "mask" else np.ones
        wide[name] = np.concatenate([array, padding((N, 3 * T), array.dtype)], axis=1)
    narrow, padded = run(library, loss, given), run(library, loss, wide)
    np.testing.assert_allclose(padded[0], narrow[0], rtol=1e-6)
    for name, metric in padded[1].items():
        np.testing.assert_allclose(metric, narrow[1][name], rtol=1e-6, atol=1e-7, err_msg=name)


@every_setting
@differentiable
def test_nothing_outside_the_mask_reaches_the_gradient(framework, loss):
    given = draw(4)
    dirty = gradient(framework, loss, garbled(given))
    np.testing.assert_array_equal(dirty, gradient(framework, loss, given))
    assert (dirty[~given["mask"]] == 0).all()


def garbled(given):
    rng = np.random.default_rng(0)
    values = np.array([np.nan, np.inf, -np.inf, 1e30], np.float32)
    return {
        name: array if name == "mask" else np.where(given["mask"], array, rng.choice(values, size=(N, T)))
        for name, array in given.items()
    }


def test_only_the_new_log_probs_get_a_gradient():
    torch = pytest.importorskip("torch")
    given = {name: torch.from_numpy(array) for name, array in draw(5).items()}
    for name in given.keys() - {"mask"}:
        given[name].requires_grad_()
    value, metrics = PolicyLoss(kl_coefficient=0.1)(**given)
    value.backward()
    assert not any(metric.requires_grad for metric in metrics.values())
    assert [name for name, array in given.items() if array.grad is not None] == ["log_probs"]


@pytest.mark.parametrize("loss", AGGREGATED, ids=label)
def test_parts_with_the_whole_normalizer_add_up(library, loss):
    given = draw(6)
    mask = given["mask"]
    count = float(mask.sum() if loss.aggregation == "token_mean" else mask.any(axis=1).sum())
    parts = 0.0
    for rows in (slice(0, 2), slice(2, N)):
        part = {name: library.asarray(array[rows]) for name, array in given.items()}
        parts += float(loss(**part, normalizer=count)[0])
    np.testing.assert_allclose(parts, run(library, loss, given)[0], rtol=1e-5)


def test_the_normalizer_may_be_an_array(library):
    given = {name: library.asarray(array) for name, array in draw(6).items()}
    seven = library.asarray(np.array(7, np.float32))
    loss = PolicyLoss()
    value = library.call(lambda normalizer: loss(**given, normalizer=normalizer)[0])(seven)
    np.testing.assert_allclose(library.numpy(value), expected(loss, draw(6), normalizer=7)[0], rtol=1e-5)


def test_an_empty_batch_gives_zero(library):
    given = draw(7)
    for loss in SETTINGS:
        value, metrics = run(library, loss, given | {"mask": np.zeros((N, T), bool)})
        assert value == 0
        assert not any(metrics.values())


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float64"])
def test_low_precision_is_computed_in_float32(kind):
    torch = pytest.importorskip("torch")
    given = {name: torch.from_numpy(array) for name, array in draw(8).items()}
    given["log_probs"] = given["log_probs"].to(getattr(torch, kind))
    value, _ = PolicyLoss()(**given)
    assert value.dtype == (torch.float64 if kind == "float64" else torch.float32)
    upcast = given | {"log_probs": given["log_probs"].double()}
    torch.testing.assert_close(value.double(), PolicyLoss()(**upcast)[0], rtol=1e-5, atol=1e-6)


def test_the_rollout_ratio_is_against_the_old_policy(library):
    given = draw(9)
    without = {name: array for name, array in given.items() if name != "rollout_log_probs"}
    assert not any(name.startswith("rollout") for name in run(library, PolicyLoss(), without)[1])
    ratios = np.exp(given["old_log_probs"] - given["rollout_log_probs"])[given["mask"]]
    metrics = run(library, PolicyLoss(), given)[1]
    np.testing.assert_allclose(metrics["rollout_ratio_mean"], ratios.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["rollout_ratio_max"], ratios.max(), rtol=1e-5)


# --- what the papers prescribe, and errors ---------------------------------------------------------------

PRESCRIBED = {
    "grpo": (0.2, 0.2, "sequence_mean"),
    "dapo": (0.2, 0.28, "token_mean"),
    "delightful": (0.2, 0.2, "token_mean"),
    "dgpo": (0.2, 0.2, "sequence_mean"),
    "dr_grpo": (0.2, 0.2, "fixed_horizon"),
    "rloo": (0.2, 0.2, "sequence_sum"),
    "entropy_shaped": (0.2, 0.2, "sequence_mean"),
    "gae": (0.2, 0.2, "token_mean"),
    "gdpo": (0.2, 0.2, "token_mean"),
    "gigpo": (0.2, 0.2, "token_mean"),
    "gpg": (0.2, 0.2, "token_mean"),
    "grpo_s": (0.2, 0.2, "sequence_mean"),
    "gtpo": (0.2, 0.2, "sequence_mean"),
    "hicra": (0.2, 0.2, "sequence_mean"),
    "lite_ppo": (0.2, 0.2, "token_mean"),
    "max_rl": (0.2, 0.2, "token_mean"),
    "mix": (0.2, 0.2, "sequence_mean"),
    "mt_grpo": (0.2, 0.2, "token_mean"),
    "opd": (0.2, 0.2, "token_mean"),
    "opo": (0.2, 0.2, "token_mean"),
    "otb": (0.2, 0.2, "token_mean"),
    "pass_at_k": (0.2, 0.2, "token_mean"),
    "process_grpo": (0.2, 0.2, "sequence_mean"),
    "reinforce_plus_plus": (0.2, 0.2, "token_mean"),
    "reinforce_plus_plus_baseline": (0.2, 0.2, "token_mean"),
    "remax": (0.2, 0.2, "sequence_sum"),
    "rlsd": (0.2, 0.28, "token_mean"),
    "tir_otb": (0.2, 0.2, "token_mean"),
    "top_entropy": (0.2, 0.28, "token_mean"),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_estimators_loss_is_its_papers(name):
    assert name in PRESCRIBED, f"add the loss of {name}'s paper to PRESCRIBED in tests/test_loss.py"
    loss = make(name).loss
    assert (loss.clip_low, loss.clip_high, loss.aggregation) == PRESCRIBED[name]
    assert loss.kl_coefficient == 0
    assert loss.dual_clip is None


@pytest.mark.parametrize(
    "settings",
    [
        {"clip_low": -0.1},
        {"clip_low": 1.1},
        {"clip_high": -0.1},
        {"dual_clip": 1.0},
        {"aggregation": "mean"},
        {"horizon": 0},
        {"horizon": 32, "aggregation": "token_mean"},
        {"dual_clip": 3.0, "objective": "cispo"},
        {"kl_coefficient": -1},
        {"clip": 0.2},
    ],
    ids=str,
)
def test_a_wrong_setting_is_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        PolicyLoss(**settings)


def test_an_unknown_setting_is_answered_with_the_known_ones():
    with pytest.raises(ValidationError, match="unknown setting 'cap', 'clip'; PolicyLoss has .*clip_low, "):
        PolicyLoss(clip=0.2, cap=3)


def test_a_loss_is_frozen_hashable_and_survives_json():
    loss = SETTINGS[4]
    assert PolicyLoss.model_validate_json(loss.model_dump_json()) == loss
    assert hash(loss) == hash(loss.model_copy())
    with pytest.raises(ValidationError, match="frozen"):
        loss.clip_low = 0.3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"log_probs": np.zeros(N, np.float32)}, r"log_probs has shape \(5,\); expected \[N, T\]"),
        ({"old_log_probs": np.zeros((N, 3), np.float32)}, r"old_log_probs has shape \(5, 3\)"),
        ({"advantages": np.zeros(4, np.float32)}, r"advantages has shape \(4,\); expected \(5,\)"),
        ({"advantages": np.zeros((4, T), np.float32)}, r"advantages has shape \(4, 4\)"),
        ({"mask": np.ones((N, 1), bool)}, r"mask has shape \(5, 1\); expected \(5, 4\)"),
        ({"reference_log_probs": np.zeros((1, T), np.float32)}, r"reference_log_probs has shape \(1, 4\)"),
        ({"rollout_log_probs": np.zeros((N, 1), np.float32)}, r"rollout_log_probs has shape \(5, 1\)"),
        ({"log_probs": [[0.0] * T] * N}, "log_probs is a list; expected an array"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_argument_is_named(library, wrong, message):
    given = {name: library.asarray(array) for name, array in draw(0).items()}
    replaced = {name: a if isinstance(a, list) else library.asarray(a) for name, a in wrong.items()}
    with pytest.raises(ValueError, match=message):
        PolicyLoss(kl_coefficient=0.1)(**given | replaced)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_an_empty_batch_is_refused(library, shape):
    empty = [library.asarray(np.zeros(shape, np.float32)) for _ in range(4)]
    with pytest.raises(ValueError, match="at least one row and one token"):
        PolicyLoss()(*empty)


def test_the_penalty_needs_its_reference(library):
    given = {name: library.asarray(a) for name, a in draw(0).items() if name != "reference_log_probs"}
    with pytest.raises(ValueError, match="needs reference_log_probs"):
        PolicyLoss(kl_coefficient=0.1)(**given)


def test_a_fixed_horizon_needs_its_length(library):
    given = {name: library.asarray(a) for name, a in draw(0).items()}
    for loss in (PolicyLoss(aggregation="fixed_horizon"), make("dr_grpo").loss):
        with pytest.raises(ValueError, match=r"needs horizon, .*PolicyLoss\(.*horizon=4096"):
            loss(**given)


def test_arrays_of_two_libraries_are_refused():
    torch = pytest.importorskip("torch")
    given = draw(0)
    with pytest.raises(ValueError, match="of one library; got .*log_probs: numpy.*mask: torch"):
        PolicyLoss()(**given | {"mask": torch.from_numpy(given["mask"])})
