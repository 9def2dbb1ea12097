"""Log-probs of a loss from hidden states: values and gradients against float64 autograd, on torch and JAX."""

import numpy as np
import pytest
import statistics_oracle as oracle

import credit
from credit.backends import limits

torch = pytest.importorskip("torch")

SETTINGS = {
    "plain": {},
    "bias": {"bias": True},
    "soft cap and scale": {"bias": True, "scale": 0.3, "soft_cap": 2.0},
}


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def draw(rng, settings, lead=(3, 5), size=1100, width=24):
    arrays = {
        "hidden": rng.normal(size=(*lead, width)).astype(np.float32),
        "head": rng.normal(size=(size, width)).astype(np.float32),
    }
    if settings.get("bias"):
        arrays["bias"] = rng.normal(size=size).astype(np.float32)
    ids = rng.integers(size, size=lead)
    weights = rng.normal(size=lead).astype(np.float32)
    options = {name: value for name, value in settings.items() if name != "bias"}
    return arrays, ids, weights, options


def expected(arrays, ids, weights, temperature, scale=1.0, soft_cap=None):
    """Values and gradients by autograd on whole float64 logits."""
    leaves = {name: torch.tensor(a, dtype=torch.float64, requires_grad=True) for name, a in arrays.items()}
    x = leaves["hidden"] @ leaves["head"].T
    x = scale * (x + leaves["bias"] if "bias" in leaves else x)
    x = x if soft_cap is None else soft_cap * torch.tanh(x / soft_cap)
    log_p = torch.log_softmax(x / torch.as_tensor(temperature)[..., None], -1)
    values = log_p.gather(-1, torch.as_tensor(ids)[..., None])[..., 0]
    (values * torch.as_tensor(weights)).sum().backward()
    return values.detach().numpy(), {name: leaf.grad.numpy() for name, leaf in leaves.items()}


def by_torch(arrays, ids, weights, **options):
    leaves = {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}
    options["temperature"] = torch.as_tensor(options["temperature"])
    values = credit.selected_log_probs_from_hidden(**leaves, token_ids=torch.as_tensor(ids), **options)
    (values * torch.as_tensor(weights)).sum().backward()
    return values.detach().numpy(), {name: leaf.grad.numpy() for name, leaf in leaves.items()}


def by_torch_compiled(arrays, ids, weights, **options):
    leaves = {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}
    options["temperature"] = torch.as_tensor(options["temperature"])

    def loss(leaves, ids, weights):
        values = credit.selected_log_probs_from_hidden(**leaves, token_ids=ids, **options)
        return (values * weights).sum(), values

    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    total, values = compiled(leaves, torch.as_tensor(ids), torch.as_tensor(weights))
    total.backward()
    return values.detach().numpy(), {name: leaf.grad.numpy() for name, leaf in leaves.items()}


def by_jax(arrays, ids, weights, **options):
    jax = pytest.importorskip("jax")
    options["temperature"] = jax.numpy.asarray(options["temperature"])
    fixed = {name: options.pop(name) for name in ("scale", "soft_cap", "chunk") if name in options}

    @jax.jit
    def loss(leaves, ids, weights, options):
        values = credit.selected_log_probs_from_hidden(**leaves, token_ids=ids, **options, **fixed)
        return (values * weights).sum(), values

    leaves = {name: jax.numpy.asarray(array) for name, array in arrays.items()}
    given = leaves, jax.numpy.asarray(ids.astype(np.int32)), jax.numpy.asarray(weights), options
    (_, values), gradients = jax.value_and_grad(loss, has_aux=True)(*given)
    return np.asarray(values), {name: np.asarray(gradient) for name, gradient in gradients.items()}


EVERY = [(settings, chunk) for settings in SETTINGS for chunk in (None, 400, 1100)]
# To trace and compile takes seconds each, and torch has been through all of them.
SOME = [("plain", None), ("bias", 400), ("soft cap and scale", 400), ("soft cap and scale", 1100)]


@pytest.mark.parametrize(
    ("run", "settings", "chunk"),
    [
        pytest.param(run, *case, marks=() if run is by_torch or case in SOME else pytest.mark.slow)
        for run in (by_torch, by_jax, by_torch_compiled)
        for case in EVERY
    ],
)
@pytest.mark.filterwarnings("default")  # of Dynamo, which are its own
def test_values_and_gradients(rng, run, settings, chunk):
    arrays, ids, weights, options = draw(rng, SETTINGS[settings])
    temperature = np.linspace(0.5, 2.0, ids.size, dtype=np.float32).reshape(ids.shape)
    values, gradients = run(arrays, ids, weights, temperature=temperature, chunk=chunk, **options)
    right, right_gradients = expected(arrays, ids, weights, temperature, **options)
    np.testing.assert_allclose(values, right, rtol=1e-6, atol=1e-5)
    for name in arrays:
        scale = np.abs(right_gradients[name]).max()
        np.testing.assert_allclose(gradients[name], right_gradients[name], rtol=1e-4, atol=2e-6 * scale)


@pytest.mark.parametrize("path", ["blocks of numpy", "no fast path"])
def test_gradients_are_summed_over_blocks_of_rows(rng, path, monkeypatch):
    """15 tokens in blocks of 4; the path without numpy's blocks is that of devices without kernels."""
    from credit.backends.torch import paths

    monkeypatch.setattr(limits, "CUDA_HEAD_ROWS", 4)
    if path == "no fast path":
        monkeypatch.setattr(paths, "is_on_cpu", lambda *tensors: False)
    arrays, ids, weights, options = draw(rng, SETTINGS["soft cap and scale"], size=60)
    values, gradients = by_torch(arrays, ids, weights, temperature=0.7, chunk=25, **options)
    right, right_gradients = expected(arrays, ids, weights, 0.7, **options)
    np.testing.assert_allclose(values, right, rtol=1e-6, atol=1e-5)
    for name in arrays:
        scale = np.abs(right_gradients[name]).max()
        np.testing.assert_allclose(gradients[name], right_gradients[name], rtol=1e-4, atol=2e-6 * scale)


def test_a_traced_id_outside_the_vocabulary_is_nan_and_has_no_gradient(rng):
    jax = pytest.importorskip("jax")
    arrays, ids, weights, _ = draw(rng, {}, lead=(4,), size=50)

    @jax.jit
    def loss(leaves, ids):
        values = credit.selected_log_probs_from_hidden(**leaves, token_ids=ids)
        return jax.numpy.nansum(values * weights), values

    for bad in (-1, 50):
        given = np.where(np.arange(4) == 2, bad, ids).astype(np.int32)
        (_, values), gradients = jax.value_and_grad(loss, has_aux=True)(arrays, given)
        np.testing.assert_array_equal(np.isnan(values), np.arange(4) == 2)
        np.testing.assert_array_equal(gradients["hidden"][2], 0.0)
        _, right = expected(arrays, ids, np.where(np.arange(4) == 2, 0.0, weights), 1.0)
        np.testing.assert_allclose(gradients["hidden"], right["hidden"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(gradients["head"], right["head"], rtol=1e-4, atol=1e-5)


def test_numpy_computes_the_values(rng):
    arrays, ids, _, options = draw(rng, SETTINGS["soft cap and scale"])
    values = credit.selected_log_probs_from_hidden(**arrays, token_ids=ids, chunk=300, **options)
    logits = oracle.head_logits(*arrays.values(), **options)
    np.testing.assert_allclose(values, oracle.selected(oracle.log_softmax(logits), ids), rtol=1e-6, atol=1e-5)


def test_gradients_of_bfloat16_are_summed_in_float32(rng):
    """Rounding each chunk's product to bfloat16 would err by some 1e-2."""
    arrays, ids, weights, _ = draw(rng, {}, lead=(64,), size=4096)
    leaves = {name: torch.tensor(array).bfloat16().requires_grad_() for name, array in arrays.items()}
    values = credit.selected_log_probs_from_hidden(**leaves, token_ids=torch.as_tensor(ids), chunk=64)
    (values * torch.as_tensor(weights)).sum().backward()
    rounded = {name: leaf.detach().float().numpy() for name, leaf in leaves.items()}
    _, gradients = expected(rounded, ids, weights, np.ones(64, np.float32))
    for name, leaf in leaves.items():
        assert leaf.grad.dtype == torch.bfloat16
        error = np.linalg.norm(leaf.grad.float().numpy() - gradients[name]) / np.linalg.norm(gradients[name])
        assert error < 2.5e-3  # one rounding to bfloat16 at the end: 2^-9 at most


def test_peak_memory_is_a_tile_not_the_logits():
    """2,048 tokens x 32,768 entries: whole logits are 268 MB, a tile of 512 columns 4 MB."""
    jax = pytest.importorskip("jax")
    hidden, head = jax.ShapeDtypeStruct((2048, 32), "float32"), jax.ShapeDtypeStruct((32_768, 32), "float32")
    ids = jax.ShapeDtypeStruct((2048,), "int32")

    def loss(hidden, head, ids):
        return credit.selected_log_probs_from_hidden(hidden, head, ids, chunk=512).sum()

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(hidden, head, ids).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 40e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunk": 0}, "chunk is 0"),
        ({"soft_cap": -1.0}, "soft_cap is -1.0"),
        ({"head": np.zeros((5, 3), np.float32)}, r"hidden has shape \(2, 4\) and head \(5, 3\)"),
        ({"bias": np.zeros(4, np.float32)}, r"bias has shape \(4,\); expected \(5,\)"),
        ({"token_ids": np.asarray([0, 5])}, r"token_ids\[1\] is 5"),
    ],
)
def test_errors_name_what_is_wrong(change, message):
    given = {
        "hidden": np.zeros((2, 4), np.float32),
        "head": np.zeros((5, 4), np.float32),
        "token_ids": np.asarray([0, 1]),
    }
    with pytest.raises(ValueError, match=message):
        credit.selected_log_probs_from_hidden(**given | change)
