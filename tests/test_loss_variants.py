"""The losses beyond PPO's clip: values and gradients against their formulas, in float64."""

import numpy as np
import pytest

import credit

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(0)
N, T = 16, 6
MASK = np.arange(T) < np.array([6, 4, 1, 0] * 4)[:, None]
OLD = -RNG.random((N, T))
NEW = OLD + 0.4 * RNG.normal(size=(N, T))
ADVANTAGES = RNG.normal(size=(N, T))
REFERENCE = OLD + 0.3 * RNG.normal(size=(N, T))
ROLLOUT = OLD + 0.5 * RNG.normal(size=(N, T))


def gradient(settings, advantages=ADVANTAGES, **fields):
    """The loss and its gradient, by torch."""
    log_probs = torch.tensor(NEW, requires_grad=True)
    arrays = {name: torch.tensor(value) for name, value in fields.items()}
    loss, metrics = credit.PolicyLoss(aggregation="token_mean", **settings)(
        log_probs, torch.tensor(OLD), torch.tensor(advantages), torch.tensor(MASK), **arrays
    )
    loss.backward()
    return loss.item(), log_probs.grad.numpy(), metrics


def token_mean(values):
    return np.where(MASK, values, 0).sum() / MASK.sum()


def check(result, values, slopes):
    loss, slope, _ = result
    assert loss == pytest.approx(token_mean(values), rel=1e-12)
    np.testing.assert_allclose(slope, np.where(MASK, slopes, 0) / MASK.sum(), rtol=1e-10, atol=1e-15)


def sequence_ratio():
    mean = np.where(MASK, NEW - OLD, 0).sum(axis=1) / np.maximum(MASK.sum(axis=1), 1)
    return np.exp(mean)[:, None] * np.ones((1, T))


@pytest.mark.filterwarnings("ignore:ratio=")
def test_gspo_keeps_token_level_advantages():
    s = sequence_ratio()
    clipped = np.clip(s, 0.8, 1.2)
    values = np.maximum(-s * ADVANTAGES, -clipped * ADVANTAGES)
    slopes = np.where(-s * ADVANTAGES >= -clipped * ADVANTAGES, -s * ADVANTAGES, 0.0)
    check(gradient({"ratio": "sequence"}), values, slopes)


@pytest.mark.filterwarnings("ignore:ratio=")
def test_gspo_has_the_papers_gradient_for_row_advantages():
    rows = ADVANTAGES[:, :1] * np.ones((1, T))
    log_probs = torch.tensor(NEW, requires_grad=True)
    mask, a = torch.tensor(MASK), torch.tensor(rows[:, 0])
    length = mask.sum(1).clamp(min=1)
    s = (((log_probs - torch.tensor(OLD)) * mask).sum(1) / length).exp()
    per_row = torch.maximum(-s * a, -s.clamp(0.8, 1.2) * a)
    (per_row[MASK.any(axis=1)].mean()).backward()
    ours = torch.tensor(NEW, requires_grad=True)
    loss, _ = credit.PolicyLoss(ratio="sequence")(ours, torch.tensor(OLD), torch.tensor(rows), mask)
    loss.backward()
    np.testing.assert_allclose(ours.grad, log_probs.grad, rtol=1e-10, atol=1e-15)


def test_cispo_keeps_every_tokens_gradient():
    bounded = np.clip(np.exp(NEW - OLD), 0.8, 1.28)
    result = gradient({"objective": "cispo", "clip_high": 0.28})
    check(result, -bounded * ADVANTAGES * NEW, -bounded * ADVANTAGES)
    above = np.exp(NEW - OLD) > 1.28
    assert float(result[2]["clip_fraction_high"]) == pytest.approx(token_mean(above))


def test_dual_clip_bounds_the_loss_of_bad_tokens():
    ratio = np.exp(NEW - OLD)
    plain, clipped = -ratio * ADVANTAGES, -np.clip(ratio, 0.8, 1.2) * ADVANTAGES
    values = np.maximum(plain, clipped)
    slopes = np.where(plain >= clipped, plain, 0.0)
    capped = (ADVANTAGES < 0) & (values > -1.05 * ADVANTAGES)
    assert (capped & MASK).any()
    result = gradient({"dual_clip": 1.05})
    check(result, np.where(capped, -1.05 * ADVANTAGES, values), np.where(capped, 0.0, slopes))


@pytest.mark.parametrize(
    ("kl", "value", "slope"),
    [
        ("k1", lambda x: -x, lambda x: np.ones_like(x)),
        ("k2", lambda x: x * x / 2, lambda x: -x),
        ("k3", lambda x: np.exp(x) - x - 1, lambda x: 1 - np.exp(x)),
    ],
)
def test_kl_penalties(kl, value, slope):
    x = REFERENCE - NEW
    zero = np.zeros_like(ADVANTAGES)
    settings = {"kl_coefficient": 0.3, "kl": kl}
    result = gradient(settings, zero, reference_log_probs=REFERENCE)
    check(result, 0.3 * value(x), 0.3 * slope(x))
    assert float(result[2]["kl"]) == pytest.approx(token_mean(value(x)))


def test_truncated_importance_sampling_weighs_without_gradient():
    base_loss, base_slope, _ = gradient({})
    capped = np.minimum(np.exp(OLD - ROLLOUT), 1.5)
    loss, slope, metrics = gradient({"rollout_cap": 1.5}, rollout_log_probs=ROLLOUT)
    np.testing.assert_allclose(slope, base_slope * np.where(MASK, capped, 0), rtol=1e-10)
    assert loss != pytest.approx(base_loss)
    assert float(metrics["rollout_ratio_max"]) == pytest.approx(np.exp(OLD - ROLLOUT)[MASK].max())


def test_missing_log_probs_are_named():
    arrays = (torch.tensor(NEW), torch.tensor(OLD), torch.tensor(ADVANTAGES), torch.tensor(MASK))
    with pytest.raises(ValueError, match="needs reference_log_probs"):
        credit.PolicyLoss(kl_coefficient=0.1)(*arrays)
    with pytest.raises(ValueError, match="needs rollout_log_probs"):
        credit.PolicyLoss(rollout_cap=2.0)(*arrays)


@pytest.mark.filterwarnings("ignore:ratio=")
@pytest.mark.parametrize("settings", [{"ratio": "sequence"}, {"objective": "cispo"}, {"kl_coefficient": 0.1}])
def test_jax_agrees(settings):
    jax = pytest.importorskip("jax")
    fields = {"reference_log_probs": REFERENCE} if "kl_coefficient" in settings else {}
    loss, slope, _ = gradient(settings, **fields)

    def single(array):
        return jax.numpy.asarray(array, "float32")

    def run(log_probs):
        arrays = {name: single(value) for name, value in fields.items()}
        estimate = credit.PolicyLoss(aggregation="token_mean", **settings)
        mask = jax.numpy.asarray(MASK)
        return estimate(log_probs, single(OLD), single(ADVANTAGES), mask, **arrays)[0]

    value, ours = jax.jit(jax.value_and_grad(run))(single(NEW))
    assert float(value) == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(ours, slope, rtol=1e-4, atol=1e-6)
