"""The rows of the GPU table: our kernels, eager and compiled torch, and the kernels of TRL and Liger."""

import math
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import peers
import torch

import credit

Tensor = torch.Tensor


def workload(
    report: Any, name: str, logits: tuple[Tensor, ...], *, first: bool, errors: Any, nats: Any
) -> None:
    """Forward, backward and the peers on one pair of logits [N, V]."""
    x, y, ids = logits
    pairs, moved, size = x.numel(), 2 * x.nbytes, x.shape[-1]
    work = f"{name}, N {len(x)}, {str(x.dtype)[6:]}"

    def add(who: str, function: Callable[[], Any], moved: int = moved, accurate: bool = False) -> None:
        more = errors(function(), *logits) if accurate else {}
        report.measure(work, who, function, pairs, moved, **more)

    add("credit", lambda: nats(credit.token_statistics(x, y, ids), size), accurate=True)
    backward = Backward(x, ids)
    add("credit, gradient of log p (x in, dx out)", backward, 2 * x.nbytes)
    del backward
    if first:
        variants(add, x, y, ids)
    if len(x) <= 8192:
        add("naive eager", lambda: peers.naive(x, y, ids))
        add("careful eager", lambda: peers.careful(x, y, ids), accurate=first)
        add("torch.compile(careful)", compiled(peers.careful, logits))
    add("careful eager, 512 rows at a time", lambda: by_rows(x, y, ids, 512))
    if first:
        add("torch.compile(naive)", compiled(peers.naive, logits))
    for who, function in kernels(x, y, ids):
        add(who, function)


def variants(add: Any, x: Tensor, y: Tensor, ids: Tensor) -> None:
    """Parts per row, strided rows, half of them masked, and a temperature."""
    from credit.backends.torch import kernels

    half = torch.full(ids.shape, 0.5, device=x.device)
    for parts in (1, 2, 4, 8):
        add(f"credit, {parts} parts", lambda p=parts: kernels.statistics(x, y, ids, half, p))
    cut = [array.reshape(8, -1, *array.shape[1:])[:, :-1] for array in (x, y, ids)]
    add("credit, logits[:, :-1]", lambda: credit.token_statistics(*cut))
    mask = torch.arange(len(ids), device=x.device) % 2 == 0
    add("credit, half the rows masked", lambda: credit.token_statistics(x, y, ids, mask=mask))
    add("credit, temperature 0.7", lambda: credit.token_statistics(x, y, ids, temperature=0.7))


class Backward:
    """The gradient alone, on a graph that is kept."""

    def __init__(self, x: Tensor, ids: Tensor) -> None:
        self.x = x.detach().requires_grad_()
        self.log_probs = credit.selected_log_probs(self.x, ids)
        self.weights = torch.randn_like(self.log_probs)

    def __call__(self) -> Tensor:
        return torch.autograd.grad(self.log_probs, self.x, self.weights, retain_graph=True)[0]


def compiled(function: Any, logits: tuple[Tensor, ...]) -> Callable[[], Any]:
    torch.compiler.reset()
    fast = torch.compile(function, dynamic=False)
    return lambda: fast(*logits)


def by_rows(x: Tensor, y: Tensor, ids: Tensor, step: int) -> Tensor:
    parts = [
        torch.stack(peers.careful(*(a[i : i + step] for a in (x, y, ids)))) for i in range(0, len(x), step)
    ]
    return torch.cat(parts, 1)


def kernels(x: Tensor, y: Tensor, ids: Tensor) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What of it TRL's and Liger's own kernels compute."""
    try:
        trl = import_module("trl.kernels.logprob_entropy")._LogProbEntropyFunction.apply
        yield "TRL's kernel on x and on y (no d)", lambda: [trl(z, ids, 1.0, None) for z in (x, y)]
    except (ImportError, AttributeError) as error:
        print(f"TRL's kernel is left out: {error}")
    try:
        liger = import_module("liger_kernel.ops.grpo_loss").fused_selective_log_softmax
        wide = [array.unsqueeze(0) for array in (x, y)]
        given = ids[:-1].unsqueeze(0)
        yield "Liger's kernel on x and on y (no H, d)", lambda: [liger(z, given, 1.0) for z in wide]
    except (ImportError, AttributeError) as error:
        print(f"Liger's kernel is left out: {error}")


def from_hidden(
    report: Any, tokens: int = 8192, size: int = 151_936, widths: tuple[int, ...] = (1024, 3584)
) -> None:
    """Two heads of width D beside the two bare matmuls, and the differentiable log-probs."""
    device = report.device
    for width in widths:
        work = f"from hidden, D {width}"
        hidden = torch.randn(tokens, width, dtype=torch.bfloat16, device=device)
        head = torch.randn(size, width, dtype=torch.bfloat16, device=device) / math.sqrt(width)
        ids = torch.randint(size, (tokens,), device=device)
        pairs, moved = tokens * size, 2 * (hidden.nbytes + head.nbytes)
        rows = [slice(i, i + 2048) for i in range(0, tokens, 2048)]

        def matmuls(hidden: Any = hidden, head: Any = head, rows: Any = rows) -> None:
            for _ in range(2):
                for part in rows:
                    torch.mm(hidden[part], head.t())

        def statistics(hidden: Any = hidden, head: Any = head, ids: Any = ids) -> Any:
            return credit.token_statistics_from_hidden(hidden, head, hidden, head, ids)

        leaves = [tensor.detach().requires_grad_() for tensor in (hidden, head)]

        def train(leaves: Any = leaves, ids: Any = ids) -> Any:
            log_probs = credit.selected_log_probs_from_hidden(*leaves, ids)
            return torch.autograd.grad(log_probs.sum(), leaves)

        report.measure(work, "two bare matmuls, bfloat16 out", matmuls, pairs, moved)
        report.measure(work, "credit, statistics of two heads", statistics, pairs, moved)
        report.measure(work, "credit, log p and both gradients", train, pairs, moved)


def jax_rows(report: Any, draw: Any) -> None:
    """Both forms of JAX's loop on the same GPU."""
    import os

    import jax
    import numpy as np

    x, y, ids = draw(8192, 151_936, torch.bfloat16, "cuda")
    given = [jax.dlpack.from_dlpack(a) for a in (x, y)] + [
        jax.numpy.asarray(ids.cpu().numpy().astype(np.int32))
    ]
    for form in ("", "whole"):
        os.environ["CREDIT_JAX_FORM"] = form
        jax.clear_caches()
        program = jax.jit(lambda *a: tuple(credit.token_statistics(*a))).lower(*given).compile()
        temporaries = program.memory_analysis().temp_size_in_bytes / 1e6
        who = f"credit, jax {form or 'chunks'}"
        report.measure(
            "jax 151,936", who, lambda p=program: jax.block_until_ready(p(*given)), x.numel(), 2 * x.nbytes,
            temporaries_mb=temporaries,
        )  # fmt: skip
    os.environ.pop("CREDIT_JAX_FORM")
