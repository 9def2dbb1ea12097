"""The differentiable log-probs and entropy, on torch and JAX, against float64."""

import logit_cases
import numpy as np
import pytest
import statistics_oracle as oracle

import credit
from credit.backends.numpy import inplace
from credit.backends.vocab import gradients, state


@pytest.fixture(params=["torch", "jax"])
def differentiate(request):
    """(logits, ids, a, b, **settings) -> the library's gradient of sum(a log p + b H) in the logits."""
    pytest.importorskip(request.param)
    return {"torch": by_torch, "jax": by_jax}[request.param]


def by_torch(logits, ids, a, b, cast=None, **settings):
    import torch

    leaf = torch.from_numpy(logits).to(getattr(torch, cast or str(logits.dtype))).requires_grad_()
    settings = {n: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for n, v in settings.items()}
    log_probs, entropy = credit.log_probs_and_entropy(leaf, torch.from_numpy(ids), **settings)
    terms = [w * t for w, t in ((a, log_probs), (b, entropy)) if w]
    sum(term.sum() for term in terms).backward()
    assert leaf.grad.dtype == leaf.dtype
    return leaf.grad.double().numpy()


def by_jax(logits, ids, a, b, cast=None, **settings):
    import jax

    leaf = jax.numpy.asarray(logits).astype(cast or logits.dtype)
    settings = {n: jax.numpy.asarray(v) if isinstance(v, np.ndarray) else v for n, v in settings.items()}

    def total(x, ids):
        log_probs, entropy = credit.log_probs_and_entropy(x, ids, **settings)
        return sum(w * t.sum() for w, t in ((a, log_probs), (b, entropy)) if w)

    gradient = jax.jit(jax.grad(total))(leaf, jax.numpy.asarray(ids))
    assert gradient.dtype == leaf.dtype
    return np.asarray(gradient, np.float64)


def draw(case, seed=7):
    rng = np.random.default_rng(seed)
    x, _ = logit_cases.CASES[case](rng)
    ids = rng.integers(x.shape[-1], size=x.shape[:-1])
    return x, np.where(np.arange(len(ids)) % 2, x.argmax(-1), ids) if len(ids) else ids


def expected(x, ids, a, b, temperature=1.0):
    of_log_prob, of_entropy = oracle.gradients(x, ids, temperature)
    return a * of_log_prob + b * of_entropy


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_oracle_agrees_with_autograd_of_the_plain_formula(temperature):
    torch = pytest.importorskip("torch")
    x, ids = draw("ordinary")
    leaf = torch.from_numpy(x).double().requires_grad_()
    log_p = (leaf / temperature).log_softmax(-1)
    log_prob = log_p.gather(-1, torch.from_numpy(ids)[:, None]).sum()
    entropy = -(log_p.exp() * log_p).sum()
    of_log_prob, of_entropy = (
        torch.autograd.grad(out, leaf, retain_graph=True)[0] for out in (log_prob, entropy)
    )
    one, other = oracle.gradients(x, ids, temperature)
    np.testing.assert_allclose(of_log_prob.numpy(), one, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(of_entropy.numpy(), other, rtol=1e-9, atol=1e-14)


CASES = ("ordinary", "one_entry", "three_entries", "masked_policy", "long_heads_and_tails", "finite_heads")
ALONE = [(case, weights) for case in ("ordinary", "masked_policy") for weights in ((1.0, 0.0), (0.0, 1.0))]


@pytest.mark.parametrize(("case", "weights"), [*((case, (0.7, -0.3)) for case in CASES), *ALONE])
def test_gradients(differentiate, case, weights):
    x, ids = draw(case)
    actual = differentiate(x, ids, *weights)
    np.testing.assert_allclose(actual, expected(x, ids, *weights), rtol=3e-5, atol=2e-6)


def test_masked_logits_have_gradient_exactly_zero(differentiate):
    x, _ = draw("masked_policy")
    assert np.isinf(x).any()
    np.testing.assert_array_equal(differentiate(x, x.argmax(-1), 1.0, 1.0)[np.isinf(x)], 0.0)


@pytest.mark.parametrize("offset", [-1e4, 1e4])
def test_gradients_of_logits_with_an_offset(differentiate, offset):
    x, ids = draw("ordinary")
    x = x + np.float32(offset)
    np.testing.assert_allclose(
        differentiate(x, ids, 1.0, 0.5), expected(x, ids, 1.0, 0.5), rtol=3e-5, atol=2e-6
    )


def test_temperature_per_token(differentiate):
    x, ids = draw("ordinary")
    temperature = np.geomspace(0.1, 10, 6).astype(np.float32)
    actual = differentiate(x, ids, 1.0, 0.5, temperature=temperature)
    np.testing.assert_allclose(actual, expected(x, ids, 1.0, 0.5, temperature), rtol=3e-5, atol=2e-5)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_low_precision_logits_have_gradients_of_their_type(differentiate, kind):
    pytest.importorskip("ml_dtypes")
    x, ids = draw("ordinary")
    rounded = x.astype(kind).astype(np.float32)
    actual = differentiate(x, ids, 1.0, 0.5, cast=kind)
    exact = expected(rounded, ids, 1.0, 0.5)
    # One rounding at the end: half a unit in the last place, or of the smallest number.
    unit, least = {"bfloat16": (2**-8, 1e-38), "float16": (2**-11, 2**-25)}[kind]
    np.testing.assert_allclose(actual, exact, rtol=unit + 1e-4, atol=least + 1e-7)


def test_several_axes_and_no_tokens(differentiate):
    x, ids = draw("ordinary")
    actual = differentiate(x.reshape(2, 3, -1), ids.reshape(2, 3), 1.0, 0.5)
    exact = expected(x, ids, 1.0, 0.5).reshape(2, 3, -1)
    np.testing.assert_allclose(actual, exact, rtol=3e-5, atol=2e-6)
    assert differentiate(*draw("no_tokens"), 1.0, 0.5).shape == (0, logit_cases.SIZE)
    for kind in ("float32", "bfloat16"):
        none = np.zeros((3, 0, 7), np.float32), np.zeros((3, 0), np.int64)
        assert differentiate(*none, 1.0, 0.5, cast=kind).shape == (3, 0, 7)


def test_a_single_token(differentiate):
    x, ids = draw("ordinary")
    actual = differentiate(x[0], np.asarray(ids[0]), 1.0, 0.5)
    np.testing.assert_allclose(actual, expected(x[:1], ids[:1], 1.0, 0.5)[0], rtol=3e-5, atol=2e-6)


@pytest.mark.parametrize("case", ["ordinary", "masked_policy", "finite_rows", "offsets", "large"])
@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_values_are_those_of_token_statistics(library, case, temperature):
    x, ids = draw(case)
    logits, ids = library.asarray(x), library.asarray(ids)
    stats = credit.token_statistics(logits, logits, ids, temperature=temperature)
    log_probs, entropy = credit.log_probs_and_entropy(logits, ids, temperature=temperature)
    alone = credit.selected_log_probs(logits, ids, temperature=temperature)
    np.testing.assert_array_equal(library.numpy(alone), library.numpy(log_probs))
    np.testing.assert_allclose(library.numpy(log_probs), library.numpy(stats.log_probs), rtol=3e-7, atol=1e-6)
    nats = library.numpy(stats.normalized_entropy) * np.log(x.shape[-1])
    np.testing.assert_allclose(library.numpy(entropy), nats, atol=5e-6)


@pytest.mark.parametrize("case", ["ordinary", "one_entry", "masked_policy", "large", "no_tokens"])
def test_values_against_float64(library, case):
    x, ids = draw(case)
    log_probs, entropy = library.call(credit.log_probs_and_entropy)(library.asarray(x), library.asarray(ids))
    log_p = oracle.log_softmax(x)
    exact = oracle.selected(log_p, ids)
    np.testing.assert_allclose(library.numpy(log_probs), exact, rtol=3e-7, atol=1e-5)
    np.testing.assert_allclose(library.numpy(entropy), oracle.entropy(log_p), atol=5e-6)


def reference(x, ids, half, grads):
    """`gradients.grad_logits` of log p and H by parts of the vocabulary, from the whole's residuals."""
    with np.errstate(all="ignore"):
        whole = state.single_state(x, ids[:, None], half)
        entropy = state.entropy(whole.policy, whole.moment)[:, None]
        residuals = whole.policy.peak, np.log(whole.policy.total), entropy
        parts = [slice(start, start + 7_000) for start in range(0, x.shape[-1], 7_000)]
        terms = grads[0], -grads[0], grads[1]
        found = [
            gradients.grad_logits(x[:, part], ids[:, None] - part.start, half, residuals, *terms)
            for part in parts
        ]
    return np.concatenate(found, -1), residuals


@pytest.mark.parametrize("case", ["ordinary", "masked_policy", "finite_heads", "one_entry", "large"])
def test_the_reference_gradient_and_the_one_in_place(case):
    x, ids = draw(case)
    rng = np.random.default_rng(1)
    half = np.geomspace(0.2, 1.0, len(x)).astype(np.float32)[:, None]
    grads = rng.normal(size=(2, len(x), 1)).astype(np.float32)
    found, residuals = reference(x, ids, half, grads)
    exact = expected(x, ids, *grads, temperature=0.5 / half[:, 0])
    np.testing.assert_allclose(found, exact, rtol=3e-5, atol=2e-6)
    out, hit = np.empty_like(x), (np.arange(len(x)), ids)
    buffers = np.empty((2, len(x), inplace.padded_width(x.shape[1])), np.float32)
    exponential = inplace.choose_exponential(x.dtype)
    with np.errstate(all="ignore"):
        inplace.write_grad_logits(x, half, np.stack(residuals), grads, hit, out, buffers, exponential)
    np.testing.assert_allclose(out, found, rtol=3e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["ordinary", "masked_policy", "large"])
def test_the_gradient_of_log_prob_alone_is_the_same(case):
    x, ids = draw(case)
    half = np.full((len(x), 1), 0.7, np.float32)
    grads = np.stack([np.linspace(-1, 1, len(x), dtype=np.float32)[:, None], np.zeros((len(x), 1), "f4")])
    found, (peak, log_total, _) = reference(x, ids, half, grads)
    alone = gradients.grad_log_prob(x, ids[:, None], half, peak, log_total, grads[0])
    np.testing.assert_allclose(alone, found, rtol=1e-5, atol=1e-7)
