"""The GPU table, in under 8 minutes: the headline first, then what else fits."""

import os
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import peers_gpu
import torch
from measuring import Case, Report, attempt

MINUTES = 6.0  # after which no row is begun; none takes more than measuring.ROW_SECONDS
HIDDEN = [Case(f"from hidden, D {width},", 8192, 151_936, torch.bfloat16) for width in (3584, 1024)]
CASES = [  # those with a figure to reach come first
    Case("Qwen", 8192, 151_936, torch.bfloat16),
    Case("", 8192, 32_000, torch.bfloat16),
    Case("few tokens", 512, 151_936, torch.bfloat16),
    Case("few tokens", 512, 32_000, torch.bfloat16),
    Case("", 8192, 151_936, torch.float32),
    Case("Llama 3", 8192, 128_256, torch.bfloat16),
    Case("Gemma", 8192, 262_144, torch.bfloat16),
    Case("many tokens", 32_768, 151_936, torch.bfloat16),
    Case("GPT-2", 8192, 50_257, torch.bfloat16),
]


def run(quick: bool = False) -> None:
    """This GPU: kernels forward and backward, from hidden states, and the peers."""
    from plotting import plot

    report = Report("cuda", torch.cuda.get_device_name())
    report.deadline = time.monotonic() + 60 * MINUTES
    report.measure_copy(torch.empty(2**30, dtype=torch.bfloat16, device="cuda").normal_())
    report.keep(triton=__import__("triton").__version__)
    measure(report, CASES[:1] if quick else CASES, HIDDEN, widths=(3584, 1024))
    print("written to", report.write(**report.facts))
    plot(report, ("credit", "careful eager", "torch.compile(careful)"))


def measure(report: Report, cases: list[Case], hidden: list[Case], widths: tuple[int, ...]) -> None:
    """The headline with its variants, both heads, JAX, and the other shapes while there is time."""
    work: list[tuple[Any, ...]] = [(peers_gpu.workload, cases[0], True)]
    work += [(peers_gpu.from_hidden, case, width) for case, width in zip(hidden, widths, strict=True)]
    work += [(peers_gpu.jax_rows, cases[0])] if find_spec("jax") else []
    work += [(peers_gpu.workload, case, False) for case in cases[1:]]
    for function, case, *more in work:
        wrong = attempt(partial(function, report, case, *more), report.deadline)
        if wrong is not None:  # in what its rows share, such as memory for the logits
            print(f"{case}: {wrong}")
        if report.device == "cuda":
            torch.cuda.empty_cache()


def once(function: Callable[[], Any]) -> tuple[list[float], float]:
    start = time.perf_counter()
    function()
    return [time.perf_counter() - start], 0.0


def rehearse() -> None:
    """Every row on tiny shapes, by Triton's interpreter; the times mean nothing and are not written."""
    from credit.backends.torch import paths

    if os.environ.get("TRITON_INTERPRET") != "1":
        raise SystemExit("Triton reads TRITON_INTERPRET=1 when it is imported: set it in the environment")
    paths.uses_kernels = lambda *tensors: tensors[0].dtype != torch.float64
    report = Report("cpu", "rehearsal")
    report.timer = once
    report.measure_copy(torch.zeros(2**16))

    def tiny(case: Case) -> Case:
        return case._replace(tokens=16, vocabulary=min(case.vocabulary, 1001))

    measure(report, [tiny(case) for case in CASES[:8:4]], [tiny(case) for case in HIDDEN[:1]], widths=(8,))
    failed = [row for row in report.rows if "ms" not in row]
    print(f"{len(report.rows)} rows, {len(failed)} of them failed")
