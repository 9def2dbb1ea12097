"""The rows of the GPU table: our kernels, eager and compiled torch, and the kernels of TRL and Liger."""

import math
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import peers
import torch
from measurements import MB, Case, Lazy, Report
from timing import time_cpu
from workloads import check, draw, errors

import credit

Tensor = torch.Tensor
FEW = 1024  # tokens below which launching takes longer than the kernel, so that it is timed in a graph
FORMS = ("", "1024", "2048", "8192", "whole")  # of JAX's loop
ALLOWED_MB = 256.0  # of temporaries in a program of JAX


def workload(report: Report, case: Case, first: bool) -> None:
    """Forward, backward and the peers on one pair of logits [N, V]."""
    x, y, ids = logits = draw(case, report.device)

    def add(who: str, function: Callable[[], Any], accurate: Any = None) -> None:
        measured = (lambda fields: accurate(fields, *logits)) if accurate else None
        report.measure(case, who, function, check=measured)

    def ours() -> Any:
        return credit.token_statistics(x, y, ids)

    # Ours and its peers stand side by side, so that they meet the same clocks and a cut leaves pairs.
    add("credit", ours, lambda fields, *given: check(fields, *given, case.vocabulary))
    if case.tokens <= 8192:
        add("careful eager", lambda: peers.careful(x, y, ids), errors if first else None)
        add("torch.compile(careful)", compiled(peers.careful, logits))
        add("naive eager", lambda: peers.naive(x, y, ids))
    add("TRL's kernel on x and on y (no d)", Lazy(lambda: trl(x, y, ids)))
    add("Liger's kernel on x and on y (no H, d)", Lazy(lambda: liger(x, y, ids)))
    add("careful eager, 512 rows at a time", lambda: by_rows(x, y, ids, 512))
    if first:
        add("torch.compile(shifted)", compiled(peers.shifted, logits), errors)
        add("torch.compile(naive)", compiled(peers.naive, logits))
    add("credit, gradient of log p (x in, dx out)", Lazy(lambda: Backward(x, ids)))
    add("credit, in a CUDA graph", Lazy(lambda: captured(ours)))
    if first or case.tokens <= FEW:
        parts(add, x, y, ids)
    if first:
        variants(add, x, y, ids)


def parts(add: Any, x: Tensor, y: Tensor, ids: Tensor) -> None:
    """The kernels alone by parts per row, in a graph, so that Python's launches do not count."""
    from credit.backends.torch import kernels

    half = torch.full(ids.shape, 0.5, device=x.device)
    for count in (1, 2, 4, 8):
        alone: Any = lambda n=count: captured(lambda: kernels.statistics(x, y, ids, half, n))  # noqa: E731
        add(f"credit, kernels alone, {count} parts", Lazy(alone))


def variants(add: Any, x: Tensor, y: Tensor, ids: Tensor) -> None:
    """Strided rows, half of them masked, statistics by name, and a temperature."""
    cut = [array.reshape(8, -1, *array.shape[1:])[:, :-1] for array in (x, y, ids)]
    add("credit, logits[:, :-1]", lambda: credit.token_statistics(*cut))
    mask = torch.arange(len(ids), device=x.device) % 2 == 0
    add("credit, half the rows masked", lambda: credit.token_statistics(x, y, ids, mask=mask))
    also: Any = ("sum_squares", "kl", "reverse_kl", "entropy")
    add(f"credit, with {', '.join(also)}", lambda: credit.token_statistics(x, y, ids, also=also))
    add("credit, with kl", lambda: credit.token_statistics(x, y, ids, also=("kl",)))
    add("credit, temperature 0.7", lambda: credit.token_statistics(x, y, ids, temperature=0.7))


def captured(function: Callable[[], Any]) -> Callable[[], Any]:
    """The function as a CUDA graph, without Python's launches; as it is where there is no GPU."""
    kept = [function()]  # compiles
    if not torch.cuda.is_available():
        return function
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept.append(function())

    def replay() -> Any:
        graph.replay()
        return kept[1]

    return replay


class Backward:
    """The gradient alone, on a graph that is kept."""

    def __init__(self, x: Tensor, ids: Tensor) -> None:
        self.x = x.detach().requires_grad_()
        self.log_probs = credit.selected_log_probs(self.x, ids)
        self.weights = torch.randn_like(self.log_probs)

    def __call__(self) -> Tensor:
        return torch.autograd.grad(self.log_probs, self.x, self.weights, retain_graph=True)[0]


def compiled(function: Any, logits: tuple[Tensor, ...]) -> Callable[[], Any]:
    def prepare() -> Callable[[], Any]:
        torch.compiler.reset()
        fast = torch.compile(function, dynamic=False, backend="inductor" if logits[0].is_cuda else "eager")
        return lambda: fast(*logits)

    return Lazy(prepare)


def by_rows(x: Tensor, y: Tensor, ids: Tensor, step: int) -> Tensor:
    blocks = [
        torch.stack(peers.careful(*(a[i : i + step] for a in (x, y, ids)))) for i in range(0, len(x), step)
    ]
    return torch.cat(blocks, 1)


def trl(x: Tensor, y: Tensor, ids: Tensor) -> Callable[[], Any]:
    """What of it TRL's kernel computes."""
    apply = import_module("trl.kernels.logprob_entropy")._LogProbEntropyFunction.apply
    return lambda: [apply(z, ids, 1.0, None) for z in (x, y)]


def liger(x: Tensor, y: Tensor, ids: Tensor) -> Callable[[], Any]:
    """What of it Liger's kernel computes, which leaves out the last token."""
    function = import_module("liger_kernel.ops.grpo_loss").fused_selective_log_softmax
    wide, given = [array.unsqueeze(0) for array in (x, y)], ids[:-1].unsqueeze(0)
    return lambda: [function(z, given, 1.0) for z in wide]


def jax_rows(report: Report, case: Case) -> None:
    """Every form of JAX's loop, on its own stream and so by the host's clock; memory from its compiler."""
    rows = {form: jax_row(report, case, form) for form in FORMS}
    os.environ.pop("CREDIT_JAX_FORM", None)
    fit = [form for form, row in rows.items() if row.get("extra_mb", math.inf) < ALLOWED_MB]
    if fit:
        best = min(fit, key=lambda form: rows[form]["ms"])
        rows[best]["best_form"] = True
        print(f"JAX_FORM_ON_GPU: {best!r} is the fastest form below {ALLOWED_MB:.0f} MB of temporaries")


def jax_row(report: Report, case: Case, form: str) -> dict[str, Any]:
    """One form; asserts that the compiled program's temporaries are small."""

    def prepare() -> Callable[[], Any]:
        import jax

        os.environ["CREDIT_JAX_FORM"] = form
        jax.clear_caches()
        x, y, ids = draw(case, report.device)
        given = [jax.dlpack.from_dlpack(a) for a in (x, y)]
        given.append(jax.device_put(ids.int().cpu().numpy(), next(iter(given[0].devices()))))
        program = jax.jit(lambda *a: tuple(credit.token_statistics(*a))).lower(*given).compile()
        temporaries.append(program.memory_analysis().temp_size_in_bytes)
        return lambda: jax.block_until_ready(program(*given))

    def timer(function: Callable[[], Any]) -> tuple[list[float], float]:
        return time_cpu(function)[0], temporaries[0]

    temporaries: list[float] = []
    row = report.measure(case, f"credit, jax, form {form!r}", Lazy(prepare), timer=timer)
    if temporaries:
        row["temporaries_allowed"] = temporaries[0] / MB < ALLOWED_MB
        if not row["temporaries_allowed"]:
            print(f"{'':46s}over the {ALLOWED_MB:.0f} MB that are allowed")
    return row
