"""The one-pass blocks of numpy and torch on a CPU: threads, small vocabularies, memory, and strided rows."""

import tracemalloc

import logit_cases
import numpy as np
import pytest
import statistics_oracle as oracle

import credit
from credit.backends import limits
from credit.backends.numpy import backend as numpy_backend
from credit.backends.numpy import inplace
from credit.backends.numpy.threads import count_threads

BLOCK = limits.NUMPY_BLOCK_ENTRIES


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def assert_within_bounds(actual, x, y, ids, temperature=1.0):
    used = oracle.errors(actual, oracle.statistics(x, y, ids, temperature), x.shape[-1])
    assert max(used.values()) <= 1.0, used


@pytest.mark.parametrize(
    "size",
    [1, 2, 511, 512, 513, 700, BLOCK, BLOCK + 1, 2 * BLOCK + 5],
)
def test_vocabularies_around_the_sizes_of_blocks_and_stretches(rng, size):
    x, y = logit_cases.ordinary(rng, rows=5, size=size)
    x[1, : size // 2] = -np.inf
    ids = rng.integers(size, size=5)
    assert_within_bounds(credit.token_statistics(x, y, ids, temperature=0.8), x, y, ids, 0.8)


def test_what_the_buffers_of_a_block_held_does_not_count(rng):
    """Their padding is part of the sums, and memory that was never written may hold anything."""
    x, y = logit_cases.ordinary(rng, rows=5, size=513)
    half = np.full((5, 1), 0.5, np.float32)
    exponential, shape = inplace.choose_exponential(half.dtype), (5, inplace.padded_width(513))
    zeros, garbage = (
        inplace.sum_block((x, y), half, [np.full(shape, held, np.float32) for _ in range(3)], exponential)
        for held in (0.0, np.nan)
    )
    np.testing.assert_array_equal(garbage, zeros)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_change_nothing(rng, threads, monkeypatch):
    x, y = logit_cases.ordinary(rng, rows=130, size=9001)
    ids = rng.integers(9001, size=130)
    alone = numpy_backend.token_statistics(x, y, ids, 1.0)
    monkeypatch.setattr(numpy_backend, "count_threads", lambda: threads)
    for one, other in zip(alone, numpy_backend.token_statistics(x, y, ids, 1.0), strict=True):
        np.testing.assert_array_equal(one, other)
    assert_within_bounds(credit.token_statistics(x, y, ids), x, y, ids)


@pytest.mark.parametrize("size", [1, 513, BLOCK + 1])
def test_one_model_alone(rng, size):
    x, _ = logit_cases.ordinary(rng, rows=5, size=size)
    x[1, : size // 2] = -np.inf
    ids = rng.integers(size // 2, size, size=5)
    log_probs, _, entropy, _ = oracle.statistics(x, x, ids, 0.8)
    actual = credit.log_probs_and_entropy(x, ids, temperature=0.8)
    np.testing.assert_allclose(actual[0], log_probs, rtol=3e-7, atol=1e-5)
    np.testing.assert_allclose(actual[1], entropy, atol=5e-6)


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("size", [1, BLOCK - 1, 2 * BLOCK + 5])
def test_gradients_around_the_sizes_of_blocks(rng, kind, size):
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(logit_cases.ordinary(rng, rows=6, size=size)[0]).to(getattr(torch, kind))
    ids = rng.integers(size, size=6)
    x[1, : size // 3], ids[1] = -torch.inf, size - 1
    leaf = x[:, None].requires_grad_()
    log_probs, entropy = credit.log_probs_and_entropy(leaf, torch.from_numpy(ids)[:, None])
    (gradient,) = torch.autograd.grad((log_probs + 0.5 * entropy).sum(), leaf)
    of_log_prob, of_entropy = oracle.gradients(x.double().numpy(), ids)
    close = {"rtol": 1e-2, "atol": 1e-5} if kind == "bfloat16" else {"rtol": 3e-5, "atol": 2e-6}
    expected = (of_log_prob + 0.5 * of_entropy)[:, None]
    np.testing.assert_allclose(gradient.double().numpy(), expected, **close)


@pytest.mark.parametrize("threads", [2, 7])
def test_threads_change_no_gradient(rng, threads):
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(logit_cases.ordinary(rng, rows=130, size=9001)[0]).requires_grad_()
    ids = torch.from_numpy(rng.integers(9001, size=130))
    before, gradients = torch.get_num_threads(), []
    for count in (1, threads):
        torch.set_num_threads(count)
        try:
            log_probs = credit.selected_log_probs(x, ids)
            gradients.append(torch.autograd.grad(log_probs.sum(), x)[0])
        finally:
            torch.set_num_threads(before)
    assert torch.equal(*gradients)


def test_exp_where_exp2_has_no_vectors(rng, monkeypatch):
    monkeypatch.setattr(inplace, "choose_exponential", lambda dtype: inplace.Exponential(np.exp, 1.0))
    x, y = logit_cases.masked_differently(rng)
    ids = rng.integers(x.shape[-1], size=6)
    assert_within_bounds(credit.token_statistics(x, y, ids), x, y, ids)


def test_memory_is_a_few_blocks(rng):
    x, y = logit_cases.ordinary(rng, rows=40, size=151_936)
    ids = rng.integers(151_936, size=40)
    tracemalloc.start()
    try:
        numpy_backend.token_statistics(x, y, ids, 1.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2e6 + 5.5e6 * count_threads()  # the logits are 49 MB


def test_strided_rows_of_several_axes(rng):
    x, y = logit_cases.ordinary(rng, rows=24, size=600)
    x, y = (array.reshape(2, 3, 4, 600)[:, :-1, 1:] for array in (x, y))
    ids = rng.integers(600, size=x.shape[:-1])
    assert_within_bounds(credit.token_statistics(x, y, ids), x, y, ids)


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16"])
def test_torch_reads_its_own_memory(rng, kind):
    torch = pytest.importorskip("torch")
    x, y = (
        torch.from_numpy(a).to(getattr(torch, kind)) for a in logit_cases.ordinary(rng, rows=8, size=70_000)
    )
    ids = torch.from_numpy(rng.integers(70_000, size=(2, 3)))
    x, y = (array.reshape(2, 4, 70_000)[:, :-1] for array in (x, y))
    actual = [field.numpy() for field in credit.token_statistics(x.requires_grad_(), y, ids)]
    assert_within_bounds(actual, x.detach().float().numpy(), y.float().numpy(), ids.numpy())


@pytest.mark.parametrize("shape", [(5, 300, 11, 7), (700, 3, 24), (40, 2, 1000), (3, 1, 4, 1)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_short_responses_share_a_block(shape, dtype):
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(*shape[:-2], shape[-2] + 1, shape[-1], generator=generator).to(getattr(torch, dtype))
    ids = torch.randint(0, shape[-1], shape[:-1], generator=generator)
    for x in (wide[..., :-1, :], wide[..., :-1, :].contiguous()):
        assert len(list(numpy_backend.split_blocks(x.shape[:-1], shape[-1], BLOCK, 1))) <= 20
        given, oracle = x.detach().clone().requires_grad_(), x.double().detach().requires_grad_()
        found = credit.log_probs_and_entropy(given, ids)
        log_p = torch.log_softmax(oracle, -1)
        expected = log_p.gather(-1, ids[..., None])[..., 0], -(log_p.exp() * log_p).sum(-1)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
        sum(each.sin().sum() for each in found).backward()
        sum(each.sin().sum() for each in expected).backward()
        tolerance = 2e-2 if dtype == "bfloat16" else 1e-5
        torch.testing.assert_close(given.grad.double(), oracle.grad, rtol=tolerance, atol=tolerance)
        statistics = credit.token_statistics(x, x.flip(-1), ids)
        p, q = (torch.softmax(side.double(), -1) for side in (x, x.flip(-1)))
        torch.testing.assert_close(
            statistics.deviation.double(), 1 - (p * q).sqrt().sum(-1), rtol=1e-4, atol=1e-6
        )
