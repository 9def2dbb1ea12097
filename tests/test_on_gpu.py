"""What only a GPU can show, in the types and sizes of training; on a CPU the same in small, where it can run.

python benchmarks/on_gpu.py runs these first. A change to the kernels or to hidden states adds its check here.
"""

import os

import numpy as np
import pytest

import credit

torch = pytest.importorskip("torch")
from credit.backends import limits  # noqa: E402
from credit.backends.torch import paths  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ON_GPU = torch.cuda.is_available() and not INTERPRETED
DEVICE = "cuda" if ON_GPU else "cpu"
MB = 1e6
pytestmark = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not ON_GPU, reason="no GPU")
OPTIONS = {"bias": True, "scale": 0.7, "soft_cap": 5.0, "temperature": 0.8}


@pytest.fixture(autouse=True)
def kernels_where_they_run(monkeypatch):
    """In Triton's interpreter, tensors on the CPU take the kernels' path too."""
    if INTERPRETED:
        monkeypatch.setattr(paths, "uses_kernels", lambda *tensors: tensors[0].dtype != torch.float64)
    torch.manual_seed(0)


def draw_logits(rows, size, kind=torch.bfloat16):
    """Two near models' logits and ids, made on the device block by block."""
    x = torch.empty(rows, size, dtype=kind, device=DEVICE)
    y = torch.empty_like(x)
    for start in range(0, rows, 1000):
        part = x[start : start + 1000]
        part.copy_(3.0 * torch.randn(part.shape, device=DEVICE))
        y[start : start + 1000] = part + 0.1 * torch.randn(part.shape, device=DEVICE)
    return x, y, torch.randint(size, (rows,), device=DEVICE)


def float64_statistics(x, y, ids):
    """log p, log q, H / ln V and d of a few rows, from their definitions."""
    log_p, log_q = x.double().log_softmax(-1), y.double().log_softmax(-1)
    deviation = 0.5 * ((0.5 * log_p).exp() - (0.5 * log_q).exp()).square().sum(-1)
    entropy = -(log_p.exp() * log_p).sum(-1) / np.log(x.shape[-1])
    return *(z.gather(-1, ids[:, None])[:, 0] for z in (log_p, log_q)), entropy, deviation


def assert_right(statistics, x, y, ids):
    for name, field, expected in zip(
        statistics._fields, statistics, float64_statistics(x, y, ids), strict=True
    ):
        torch.testing.assert_close(
            field.double(), expected, rtol=1e-4, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def head_case(kind):
    """Hidden states, a head of an odd number of entries and a bias: several blocks of rows and chunks on a GPU."""
    rows, width, size = (4100, 256, 20_011) if ON_GPU else (40, 32, 1001)
    hidden = torch.randn(rows, width, device=DEVICE).to(kind)
    head = (2.0 * torch.randn(size, width, device=DEVICE) / width**0.5).to(kind)
    ids = torch.randint(size, (rows,), device=DEVICE)
    return hidden, head, torch.randn(size, device=DEVICE).to(kind), ids


def float64_logits(hidden, head, bias=None, scale=1.0, soft_cap=None, temperature=1.0):
    x = scale * (hidden @ head.T + (0.0 if bias is None else bias))
    return (x if soft_cap is None else soft_cap * torch.tanh(x / soft_cap)) / temperature


@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["plain", "all options"])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_log_probs_of_16_bit_hidden_states_and_their_gradients(kind, options):
    """On a GPU the matmul multiplies 16 bits and sums in float32."""
    hidden, head, bias, ids = head_case(kind)
    options = options | ({"bias": bias} if options else {})
    leaves = [hidden.requires_grad_(), head.requires_grad_()]
    weights = torch.randn(len(ids), device=DEVICE)
    log_probs = credit.selected_log_probs_from_hidden(*leaves, ids, **options)
    gradients = torch.autograd.grad((log_probs * weights).sum(), leaves)
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    options = options | ({"bias": bias.double()} if options else {})
    expected = float64_logits(*wide, **options).log_softmax(-1).gather(-1, ids[:, None])[:, 0]
    assert log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs.double(), expected, rtol=0, atol=1e-4)
    for found, right in zip(gradients, torch.autograd.grad((expected * weights).sum(), wide), strict=True):
        assert found.dtype == kind
        assert (found.double() - right).norm() < 2 * torch.finfo(kind).eps * right.norm()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_statistics_of_16_bit_hidden_states(kind):
    hidden, head, _, ids = head_case(kind)
    other = (hidden.float() + 0.05 * torch.randn(hidden.shape, device=DEVICE)).to(kind)
    found = credit.token_statistics_from_hidden(hidden, head, other, head, ids, temperature=0.7)
    x, y = (float64_logits(side.double(), head.double(), temperature=0.7) for side in (hidden, other))
    assert_right(found, x, y, ids)


def float64_by_name(x, y):
    """The statistics that are asked for by name, from their definitions."""
    log_p, log_q = x.double().log_softmax(-1), y.double().log_softmax(-1)
    p, q = log_p.exp(), log_q.exp()

    def divergence(p, log_p, log_q):
        return torch.where(p > 0, p * (log_p - log_q), 0.0).sum(-1)

    return {
        "kl": divergence(p, log_p, log_q),
        "sum_squares": p.square().sum(-1),
        "entropy": -torch.where(p > 0, p * log_p, 0.0).sum(-1),
        "reverse_kl": divergence(q, log_q, log_p),
    }


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_statistics_by_name(kind):
    """Near models, whose KL is some 5e-7 in float32, a token without mass in one of them, and equal models."""
    x, y, ids = draw_logits(64 if ON_GPU else 6, 151_936 if ON_GPU else 2_001, torch.float32)
    y, x = (x + 1e-3 * (y - x) / 0.1).to(kind), x.to(kind)
    x[1, 7::9], y[1, 7::9], y[2, 5], y[3] = -torch.inf, -torch.inf, -torch.inf, x[3]
    expected = float64_by_name(x, y)
    four, found = credit.token_statistics(x, y, ids, also=tuple(expected))
    for name, value in found.items():
        exact = name in ("kl", "reverse_kl")
        close = {"rtol": 2e-4, "atol": 4e-12} if exact else {"rtol": 1e-5, "atol": 5e-6}
        torch.testing.assert_close(value.double(), expected[name], **close)
    assert found["kl"][2] == torch.inf
    assert found["kl"][3] == found["reverse_kl"][3] == 0.0
    for field, alone in zip(four, credit.token_statistics(x, y, ids), strict=True):
        assert torch.equal(field, alone)


def test_more_logits_than_32_bits_can_count():
    """2.3e9 logits a model: the last row lies beyond 2^31 entries."""
    rows, size = (15_000, 151_936) if ON_GPU else (15, 1519)
    x, y, ids = draw_logits(rows, size)
    found = credit.token_statistics(x, y, ids)
    last = slice(-3, None)
    assert_right(type(found)(*(field[last] for field in found)), x[last], y[last], ids[last])
    del y
    log_probs = credit.selected_log_probs(x.requires_grad_(), ids)
    (gradient,) = torch.autograd.grad(log_probs.sum(), x)
    expected = torch.nn.functional.one_hot(ids[last], size) - x.detach()[last].double().softmax(-1)
    torch.testing.assert_close(gradient[last].double(), expected, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("size", [1001, 50_257 if ON_GPU else 77])
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_vocabularies_and_rows_without_alignment(size, offset):
    """Rows begin at odd entries, and neither their length nor their distance is a multiple of 16 bytes."""
    x, y, ids = draw_logits(64 if ON_GPU else 4, size + offset)
    x, y, ids = x[:, offset:], y[:, offset:], ids % size
    assert_right(credit.token_statistics(x, y, ids), x, y, ids)


@needs_gpu
def test_another_stream_than_the_default():
    """The logits are there only once the stream has come to them."""
    x, y, ids = draw_logits(256, 32_000)
    expected = credit.token_statistics(x, y, ids)
    late_x, late_y = torch.zeros_like(x), torch.zeros_like(y)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        late_x.copy_(x)
        late_y.copy_(y)
        found = credit.token_statistics(late_x, late_y, ids)
    stream.synchronize()
    for field, right in zip(found, expected, strict=True):
        assert torch.equal(field, right)


@pytest.mark.skipif(not ON_GPU and not INTERPRETED, reason="tests/test_statistics_torch.py does it for CPUs")
def test_inductor():
    x, y, ids = draw_logits(64 if ON_GPU else 4, 32_000 if ON_GPU else 333)

    def both(x, y):
        return *credit.token_statistics(2.0 * x, y, ids), credit.selected_log_probs(2.0 * x, ids)

    x.requires_grad_()
    eager, compiled = (
        both(x, y),
        torch.compile(both, fullgraph=True, backend="inductor" if ON_GPU else "aot_eager")(x, y),
    )
    for one, other in zip(eager, compiled, strict=True):
        torch.testing.assert_close(one, other)
    gradients = [torch.autograd.grad(outputs[-1].sum(), x)[0] for outputs in (eager, compiled)]
    torch.testing.assert_close(*gradients)


@needs_gpu
def test_cuda_graphs_of_the_gradient_and_of_hidden_states():
    hidden, head, _, ids = head_case(torch.bfloat16)
    leaves = [hidden.requires_grad_(), head.requires_grad_()]

    def step():
        log_probs = credit.selected_log_probs_from_hidden(*leaves, ids)
        statistics = credit.token_statistics_from_hidden(hidden, head, hidden, 0.9 * head, ids)
        return *torch.autograd.grad(log_probs.sum(), leaves), *statistics

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()  # compiles
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        hidden.copy_(torch.randn_like(hidden))
    graph.replay()
    for field, fresh in zip(captured, step(), strict=True):
        rounding = torch.finfo(field.dtype).eps  # a matmul within a graph may take another algorithm
        torch.testing.assert_close(field, fresh, rtol=4 * rounding, atol=1e-5)


@needs_gpu
def test_memory_beside_the_logits():
    """The statistics need a few floats per token, and a gradient itself and no more."""
    x, y, ids = draw_logits(2048, 151_936)

    def extra(function):
        function()  # compiles
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    assert extra(lambda: credit.token_statistics(x, y, ids)) < 2 * MB
    x.requires_grad_()
    backward = extra(lambda: torch.autograd.grad(credit.selected_log_probs(x, ids).sum(), x))
    assert backward < x.nbytes + 2 * MB
    hidden, head = torch.randn(4096, 512, device=DEVICE), torch.randn(151_936, 512, device=DEVICE)
    hidden, head = hidden.bfloat16(), head.bfloat16()
    ids = torch.randint(151_936, (4096,), device=DEVICE)
    tiles = 2 * 4 * limits.CUDA_HEAD_ROWS * limits.CUDA_HEAD_CHUNK_ENTRIES
    from_hidden = extra(lambda: credit.token_statistics_from_hidden(hidden, head, hidden, head, ids))
    assert from_hidden < 1.1 * tiles + 64 * MB
