"""Times the token statistics beside their peers in one process; writes a table, JSON and plots.

    python benchmarks/token_statistics.py --cpu        # torch, numpy and JAX on this CPU
    python benchmarks/token_statistics.py --gpu        # the GPU table, resumed where it was cut
    python benchmarks/token_statistics.py --rehearse   # the code of --gpu on tiny shapes, without a GPU

GB/s count the bytes of one pass (each logit once), also for those who read more often. A peer that is not
installed is named and left out. Nothing here is predicted: what does not run prints no number.
"""

import argparse
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import peers
import torch
from measurements import MB, RESULTS, Case, Report, cpu_name
from plotting import plot
from workloads import draw, errors, nats

import credit


def on_path(path: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with CREDIT_CPU set to a path."""

    def call(*arguments: Any) -> Any:
        os.environ["CREDIT_CPU"] = path
        return function(*arguments)

    return call


# Ours on a CPU, by what is added to the name; the compiled path where numba is installed.
PATHS = {"": "numpy"} | ({", compiled": "compiled"} if find_spec("numba") else {})
OURS = {who: on_path(path, credit.token_statistics) for who, path in PATHS.items()}


def run_cpu(tokens: int, size: int, folder: Path) -> None:
    """This CPU: torch, numpy and JAX, each beside its own naive code."""
    report = Report("cpu", cpu_name(), folder)
    case = Case("", tokens, size, torch.float32)
    x, y, ids = draw(case, "cpu")
    report.measure_copy(x)

    def add(who: str, function: Callable[[], Any]) -> None:
        report.measure(case, who, function, check=lambda fields: errors(fields, x, y, ids))

    for who, statistics in OURS.items():
        add(f"credit, torch{who}", lambda s=statistics: nats(s(x, y, ids), size))
    add("torch naive eager", lambda: peers.naive(x, y, ids))
    add("torch careful eager", lambda: peers.careful(x, y, ids))
    for name, function in (("naive", peers.naive), ("careful", peers.careful)):
        compiled = torch.compile(function, dynamic=False)
        add(f"torch.compile({name})", lambda c=compiled: c(x, y, ids))
    arrays = x.numpy(), y.numpy(), ids.numpy()
    for who, statistics in OURS.items():
        add(f"credit, numpy{who}", lambda s=statistics: nats(s(*arrays), size))
    add("numpy naive", lambda: peers.naive_numpy(*arrays))
    facts: dict[str, Any] = {"threads": torch.get_num_threads()}
    if find_spec("jax"):
        facts |= run_jax(add, arrays, size)
    low_precision(report, case._replace(kind=torch.bfloat16))
    gradients(report, x, ids)
    for tokens_, size_ in ((16, size), (64, size), (tokens, size // 16), (tokens, size // 4)):
        scaling(report, Case("", tokens_, size_, torch.float32))
    print("written to", report.write(**facts))
    plot(report, (*(f"credit, torch{who}" for who in OURS), "torch naive eager"), name=case.name)


def run_jax(add: Any, arrays: Any, size: int) -> dict[str, Any]:
    """JAX beside its own naive code, with the temporaries of the compiled programs."""
    import jax

    given = [jax.numpy.asarray(a) for a in (*arrays[:2], arrays[2].astype(np.int32))]
    facts: dict[str, Any] = {"jax": jax.__version__}
    for who, function in (
        ("credit, jax jit", lambda *a: nats(credit.token_statistics(*a), size)),
        ("jax naive jit", peers.naive_jax),
    ):
        compiled = jax.jit(function).lower(*given).compile()
        facts[f"temporaries_mb, {who}"] = compiled.memory_analysis().temp_size_in_bytes / MB
        add(who, lambda c=compiled: jax.block_until_ready(c(*given)))
        print(f"{who}: temporaries {facts[f'temporaries_mb, {who}']:.1f} MB")
    return facts


def low_precision(report: Report, case: Case) -> None:
    """bfloat16 logits on torch."""
    x, y, ids = draw(case, "cpu")
    functions: dict[str, Callable[[], Any]] = {
        f"credit, torch{who}": lambda s=statistics: nats(s(x, y, ids), case.vocabulary)
        for who, statistics in OURS.items()
    }
    functions["torch naive eager"] = lambda: peers.naive(x, y, ids)
    for who, function in functions.items():
        report.measure(case, who, function, check=lambda fields: errors(fields, x, y, ids))


def gradients(report: Report, x: torch.Tensor, ids: torch.Tensor) -> None:
    """log p and H of one model with their gradient, in both types; bytes: read twice and written once."""
    for kind in (torch.float32, torch.bfloat16):
        case = Case("log p, H and gradient", *x.shape, kind)
        leaf = x.to(kind).requires_grad_()
        both = {
            f"credit, torch{who}": on_path(path, credit.log_probs_and_entropy) for who, path in PATHS.items()
        }
        for who, function in (both | {"torch naive eager": peers.log_probs_and_entropy}).items():

            def call(function: Callable[..., Any] = function, leaf: torch.Tensor = leaf) -> Any:
                log_probs, entropy = function(leaf, ids)
                return torch.autograd.grad((log_probs + 0.1 * entropy).sum(), leaf)

            report.measure(case, who, call, moved=3 * case.moved // 2)


def scaling(report: Report, case: Case) -> None:
    """A shape of the plot."""
    x, y, ids = draw(case, "cpu")
    for who, statistics in OURS.items():
        report.measure(case, f"credit, torch{who}", lambda s=statistics: s(x, y, ids))
    report.measure(case, "torch naive eager", lambda: peers.naive(x, y, ids))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--cpu", action="store_true")
    which.add_argument("--gpu", action="store_true")
    which.add_argument("--rehearse", action="store_true")
    parser.add_argument("--tokens", type=int, default=192, help="on the CPU")
    parser.add_argument("--vocabulary", type=int, default=151_936, help="on the CPU")
    parser.add_argument("--quick", action="store_true", help="the headline only (GPU)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of JSON and plot")
    parser.add_argument(
        "--time-limit", type=float, default=360.0, help="seconds after which no row is begun (GPU)"
    )
    options = parser.parse_args()
    if options.gpu and not torch.cuda.is_available():
        sys.exit("no GPU here; --cpu measures the CPU paths")
    if options.cpu:
        run_cpu(options.tokens, options.vocabulary, options.output)
    else:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch holds memory too
        import gpu

        if options.rehearse:
            sys.exit(gpu.rehearse(options.output))
        sys.exit(gpu.run(options.output, options.time_limit, options.quick))
