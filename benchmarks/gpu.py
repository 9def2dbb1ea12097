"""The GPU table: the headline first, then what else fits into the time."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hidden_gpu
import peers_gpu
import torch
import tuning_gpu
from measurements import Case, Report, attempt
from records import UNFINISHED

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


def run(folder: Path, seconds: float, quick: bool = False) -> int:
    """This GPU: kernels forward and backward, from hidden states, and the peers; the exit status."""
    from plotting import plot

    report = Report("cuda", torch.cuda.get_device_name(), folder)
    report.deadline = time.monotonic() + seconds
    report.resume()
    report.measure_copy(torch.empty(2**30, dtype=torch.bfloat16, device="cuda").normal_())
    report.keep(triton=__import__("triton").__version__)
    wrong = measure(report, CASES[:1] if quick else CASES, HIDDEN, widths=(3584, 1024))
    print("written to", report.write(**report.facts))
    drawn = attempt(lambda: plot(report, ("credit", "careful eager", "torch.compile(careful)")), float("inf"))
    return conclude(report, wrong + [f"the plot: {drawn}"] * (drawn is not None))


def measure(report: Report, cases: list[Case], hidden: list[Case], widths: tuple[int, ...]) -> list[str]:
    """The headline, both heads, JAX, other shapes, the constants; what went wrong outside of a row."""
    work: list[tuple[Any, ...]] = [(peers_gpu.workload, cases[0], True)]
    work += [(hidden_gpu.from_hidden, case, width) for case, width in zip(hidden, widths, strict=True)]
    work += [(peers_gpu.jax_rows, cases[0])] if find_spec("jax") else []
    work += [(peers_gpu.workload, case, False) for case in cases[1:3]]
    work += [(tuning_gpu.registers, cases[0]), (tuning_gpu.head_tiles, hidden[0], widths[0])]
    work += [(peers_gpu.workload, case, False) for case in cases[3:]]
    failed = []
    for function, case, *more in work:
        wrong = attempt(partial(function, report, case, *more), report.deadline)
        if wrong is not None:  # in what its rows share, such as memory for the logits
            failed += [f"{function.__name__}, {case}: {wrong}"]
        if report.device == "cuda":
            with suppress(RuntimeError):
                torch.cuda.empty_cache()
    return failed


def conclude(report: Report, failed: list[str]) -> int:
    """Says what failed; 0, 1 where something did, or 75 where only the time was over."""
    unmeasured = [wrong for wrong in failed if "OutOfTime" in wrong]
    failed = [wrong for wrong in failed if wrong not in unmeasured]
    failed += [f"{row['who']}: {row['failed']}" for row in report.failures]
    print(f"{len(report.rows)} rows, {len(failed)} failures", *failed, sep="\n")
    return 1 if failed else UNFINISHED if unmeasured or not report.is_complete else 0


def once(function: Callable[[], Any]) -> tuple[list[float], float]:
    start = time.perf_counter()
    function()
    return [time.perf_counter() - start], 0.0


def rehearse(folder: Path) -> int:
    """Every row on tiny shapes, by Triton's interpreter; the times mean nothing. The exit status."""
    from credit.backends.torch import paths

    if os.environ.get("TRITON_INTERPRET") != "1":
        raise SystemExit("Triton reads TRITON_INTERPRET=1 when it is imported: set it in the environment")
    paths.uses_kernels = lambda *tensors: tensors[0].dtype != torch.float64
    report = Report("cpu", "rehearsal", folder, label="rehearsal")
    report.timer = once
    report.resume()
    report.keep()
    report.measure_copy(torch.zeros(2**16))

    def tiny(case: Case) -> Case:
        return case._replace(tokens=16, vocabulary=501)

    cases, hidden = ([tiny(case) for case in some] for some in ([CASES[0], CASES[4]], HIDDEN[:1]))
    return conclude(report, measure(report, cases, hidden, widths=(8,)))
