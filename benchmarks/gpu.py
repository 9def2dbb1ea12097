"""The GPU table, in under 8 minutes: the headline first, then what else fits."""

import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import peers_gpu
import torch
from measuring import Case, Report

MINUTES = 6.5  # after which nothing is begun; the longest workload takes less than one
HIDDEN = [Case(f"from hidden, D {width},", 8192, 151_936, torch.bfloat16) for width in (1024, 3584)]
CASES = [
    Case("Qwen", 8192, 151_936, torch.bfloat16),
    Case("Llama 3", 8192, 128_256, torch.bfloat16),
    Case("", 8192, 32_000, torch.bfloat16),
    Case("Gemma", 8192, 262_144, torch.bfloat16),
    Case("", 8192, 151_936, torch.float32),
    Case("few tokens", 512, 151_936, torch.bfloat16),
    Case("few tokens", 512, 32_000, torch.bfloat16),
    Case("many tokens", 32_768, 151_936, torch.bfloat16),
    Case("GPT-2", 8192, 50_257, torch.bfloat16),
]


def run(quick: bool = False) -> None:
    """This GPU: kernels forward and backward, from hidden states, and the peers."""
    from plotting import plot

    report = Report("cuda", torch.cuda.get_device_name())
    report.measure_copy(torch.empty(2**31, dtype=torch.bfloat16, device="cuda").normal_())
    measure(report, CASES[:1] if quick else CASES, HIDDEN, widths=(1024, 3584))
    report.write(triton=__import__("triton").__version__)
    plot(report, ("credit", "careful eager", "torch.compile(careful)"))


def measure(report: Report, cases: list[Case], hidden: list[Case], widths: tuple[int, ...]) -> None:
    """The headline with its variants, both heads, JAX, and the other shapes while there is time."""
    deadline = time.monotonic() + 60 * MINUTES
    peers_gpu.workload(report, cases[0], first=True)
    for case, width in zip(hidden, widths, strict=True):
        peers_gpu.from_hidden(report, case, width)
    if find_spec("jax"):
        peers_gpu.jax_rows(report, cases[0])
    for place, case in enumerate(cases[1:], 1):
        if time.monotonic() > deadline:
            print(f"{MINUTES} minutes are over; left out:", ", ".join(map(str, cases[place:])))
            break
        if report.device == "cuda":
            torch.cuda.empty_cache()
        peers_gpu.workload(report, case, first=False)


def once(function: Callable[[], Any]) -> tuple[list[float], float]:
    start = time.perf_counter()
    function()
    return [time.perf_counter() - start], 0.0


def rehearse() -> None:
    """Every row on tiny shapes, by Triton's interpreter; the times mean nothing and are not written."""
    import credit.backends.torch as backend

    if os.environ.get("TRITON_INTERPRET") != "1":
        raise SystemExit("Triton reads TRITON_INTERPRET=1 when it is imported: set it in the environment")
    backend.on_kernels = lambda *tensors: tensors[0].dtype != torch.float64
    report = Report("cpu", "rehearsal")
    report.timer = once
    report.measure_copy(torch.zeros(2**16))

    def tiny(case: Case) -> Case:
        return case._replace(tokens=16, vocabulary=min(case.vocabulary, 1001))

    measure(report, [tiny(case) for case in CASES[:8:4]], [tiny(case) for case in HIDDEN[:1]], widths=(8,))
    failed = [row for row in report.rows if "ms" not in row]
    print(f"{len(report.rows)} rows, {len(failed)} of them failed")
