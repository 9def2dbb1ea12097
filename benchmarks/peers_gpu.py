"""The rows of the GPU table: our kernels, eager and compiled torch, and the kernels of TRL and Liger."""

import math
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import peers
import torch
from measuring import Case, Report, time_cpu
from workloads import draw, errors, nats

import credit

Tensor = torch.Tensor


def workload(report: Report, case: Case, *, first: bool) -> None:
    """Forward, backward and the peers on one pair of logits [N, V]."""
    x, y, ids = logits = draw(case, report.device)

    def add(who: str, function: Callable[[], Any], accurate: bool = False) -> None:
        more = errors(function(), *logits) if accurate else {}
        report.measure(case, who, function, **more)

    add("credit", lambda: nats(credit.token_statistics(x, y, ids), case.vocabulary), accurate=True)
    backward = Backward(x, ids)
    add("credit, gradient of log p (x in, dx out)", backward)
    del backward
    if first:
        variants(add, x, y, ids)
    if case.tokens <= 8192:
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
    fast = torch.compile(function, dynamic=False, backend="inductor" if logits[0].is_cuda else "eager")
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


def from_hidden(report: Report, case: Case, width: int) -> None:
    """Two heads of the given width beside the two bare matmuls, and the differentiable log-probs."""
    hidden = torch.randn(case.tokens, width, dtype=case.kind, device=report.device)
    head = torch.randn(case.vocabulary, width, dtype=case.kind, device=report.device) / math.sqrt(width)
    ids = torch.randint(case.vocabulary, (case.tokens,), device=report.device)
    leaves = [tensor.detach().requires_grad_() for tensor in (hidden, head)]

    def matmuls() -> None:
        for _ in range(2):
            for start in range(0, case.tokens, 2048):
                torch.mm(hidden[start : start + 2048], head.t())

    def statistics() -> Any:
        return credit.token_statistics_from_hidden(hidden, head, hidden, head, ids)

    def train() -> Any:
        log_probs = credit.selected_log_probs_from_hidden(*leaves, ids)
        return torch.autograd.grad(log_probs.sum(), leaves)

    moved = 2 * (hidden.nbytes + head.nbytes)
    report.measure(case, "two bare matmuls", matmuls, moved)
    report.measure(case, "credit, statistics of two heads", statistics, moved)
    report.measure(case, "credit, log p and both gradients", train, moved)


def jax_rows(report: Report, case: Case) -> None:
    """Both forms of JAX's loop, on its own stream and so by the host's clock; memory from its compiler."""
    import jax

    x, y, ids = draw(case, report.device)
    given = [jax.dlpack.from_dlpack(a) for a in (x, y)]
    given.append(jax.device_put(ids.int().cpu().numpy(), next(iter(given[0].devices()))))
    for form in ("", "whole"):
        os.environ["CREDIT_JAX_FORM"] = form
        jax.clear_caches()
        program = jax.jit(lambda *a: tuple(credit.token_statistics(*a))).lower(*given).compile()

        def timer(function: Callable[[], Any], program: Any = program) -> tuple[list[float], float]:
            return time_cpu(function)[0], program.memory_analysis().temp_size_in_bytes

        who = f"credit, jax {form or 'chunks'}"
        report.measure(case, who, lambda p=program: jax.block_until_ready(p(*given)), timer=timer)
    os.environ.pop("CREDIT_JAX_FORM")
