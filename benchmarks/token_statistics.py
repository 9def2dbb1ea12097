"""Times the token statistics beside their peers in one process; writes a table, JSON and plots.

    python benchmarks/token_statistics.py --cpu      # torch, numpy and JAX on this CPU
    python benchmarks/token_statistics.py --gpu      # the whole GPU table, in under 8 minutes

GB/s count the bytes of one pass (each logit once), also for those who read more often. A peer that is not
installed is named and left out. Nothing here is predicted: what does not run prints no number.
"""

import argparse
import json
import platform
import resource
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import peers
import torch

import credit

RESULTS = Path(__file__).parent / "results"
MB = 1e6
FULL = [  # name, tokens, vocabulary, type
    ("Qwen 151,936", 8192, 151_936, torch.bfloat16),
    ("Llama 3 128,256", 8192, 128_256, torch.bfloat16),
    ("32,000", 8192, 32_000, torch.bfloat16),
    ("Gemma 262,144", 8192, 262_144, torch.bfloat16),
    ("float32", 8192, 151_936, torch.float32),
    ("few tokens", 512, 151_936, torch.bfloat16),
    ("few tokens, 32,000", 512, 32_000, torch.bfloat16),
    ("many tokens", 32_768, 151_936, torch.bfloat16),
    ("GPT-2 50,257", 8192, 50_257, torch.bfloat16),
]


class Report:
    """Rows of one run: printed as they come, written at the end."""

    def __init__(self, device: str, name: str) -> None:
        self.device, self.name, self.rows, self.copy = device, name, [], float("nan")

    def measure(
        self, work: str, who: str, function: Callable[[], Any], pairs: int, moved: int, **more: Any
    ) -> None:
        """Median time, GB/s of `moved` bytes, and peak memory beyond what was there."""
        try:
            seconds, extra = (time_gpu if self.device == "cuda" else time_cpu)(function)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            self.rows.append({"work": work, "who": who, "failed": "out of memory"})
            print(f"{work:24s}{who:44s} out of memory", flush=True)
            return
        median = float(np.median(seconds))
        row = {"work": work, "who": who, "ms": 1e3 * median, "ns_per_pair": 1e9 * median / pairs}
        row |= {"ms_p20_p80": [1e3 * float(q) for q in np.quantile(seconds, [0.2, 0.8])]}
        row["gb_per_s"] = moved / median / 1e9
        row["percent_of_copy"] = 100 * row["gb_per_s"] / self.copy
        row |= {"extra_mb": extra / MB, **more}
        self.rows.append(row)
        shown = "  ".join(f"{key} {value:.1e}" for key, value in more.items())
        print(
            f"{work:24s}{who:44s}{row['ms']:10.2f} ms{row['gb_per_s']:8.1f} GB/s"
            f"{row['percent_of_copy']:6.0f}% of copy{row['extra_mb']:10.1f} MB  {shown}",
            flush=True,
        )

    def write(self, **facts: Any) -> Path:
        """JSON with the machine's name beside the figures."""
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"token_statistics_{self.device}.json"
        versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
        head = {"device": self.name, "copy_gb_per_s": self.copy, **versions, **facts}
        path.write_text(json.dumps({**head, "rows": self.rows}, indent=1) + "\n")
        return path


def time_cpu(function: Callable[[], Any], repeats: int = 5) -> tuple[list[float], float]:
    """Wall seconds, and growth of the process's peak memory in the first call."""
    before = reset_peak()
    function()
    extra = peak() - before
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return seconds, max(extra, 0.0)


def time_gpu(function: Callable[[], Any]) -> tuple[list[float], float]:
    """Seconds by events, at least 200 ms of them, the cache cleared in between; and peak allocation."""
    import triton

    function()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    extra = torch.cuda.max_memory_allocated() - before
    return [
        ms / 1e3 for ms in triton.testing.do_bench(function, warmup=50, rep=200, return_mode="all")
    ], extra


def reset_peak() -> float:
    """Sets the kernel's high-water mark back, where it allows that; the current mark in bytes."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return peak()
    return peak()


def peak() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return 1024.0 * int(line.split()[1])
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def draw(tokens: int, size: int, kind: torch.dtype, device: str) -> tuple[torch.Tensor, ...]:
    """Peaked logits, and the same with noise of 0.1, made in pieces."""
    generator = torch.Generator(device).manual_seed(0)
    x = torch.empty(tokens, size, dtype=kind, device=device)
    y = torch.empty_like(x)
    for start in range(0, tokens, 512):
        part = x[start : start + 512]
        logits = 3.0 * torch.randn(part.shape, generator=generator, device=device)
        logits[:, :16] += 12.0 * torch.rand(len(part), 16, generator=generator, device=device)
        part.copy_(logits)
        noise = torch.randn(part.shape, generator=generator, device=device)
        y[start : start + 512] = logits + 0.1 * noise
    return x, y, torch.randint(size, (tokens,), generator=generator, device=device)


def errors(fields: Any, x: torch.Tensor, y: torch.Tensor, ids: torch.Tensor) -> dict[str, float]:
    """Largest errors on 32 tokens against float64: log p, H in nats, and d relative."""
    rows = slice(min(32, len(ids)))
    expected = peers.float64(x[rows], y[rows], ids[rows])
    log_p, _, h, d = (
        torch.as_tensor(np.asarray(f.cpu() if hasattr(f, "cpu") else f)).double()[rows] for f in fields
    )
    truth = [field.cpu() for field in expected]
    relative = ((d - truth[3]).abs() / truth[3]).max()
    return {
        "log_p": float((log_p - truth[0]).abs().max()),
        "H": float((h - truth[2]).abs().max()),
        "d_rel": float(relative),
    }


def nats(statistics: credit.TokenStatistics, size: int) -> tuple[Any, ...]:
    return (*statistics[:2], statistics.normalized_entropy * float(np.log(size)), statistics.deviation)


def run_cpu(tokens: int, size: int) -> None:
    """This CPU: torch, numpy and JAX, each beside its own naive code."""
    report = Report("cpu", cpu_name())
    x, y, ids = draw(tokens, size, torch.float32, "cpu")
    other = torch.empty_like(x)
    report.copy = 2 * x.nbytes / float(np.median(time_cpu(lambda other=other: other.copy_(x))[0])) / 1e9
    del other
    print(f"{report.name}, {torch.get_num_threads()} threads, copy {report.copy:.1f} GB/s (read and write)")
    pairs, moved = x.numel(), 2 * x.nbytes

    def add(
        work: str, who: str, function: Callable[[], Any], given: Any = (x, y, ids), moved: int = moved
    ) -> None:
        report.measure(work, who, function, pairs, moved, **errors(function(), *given))

    work = f"{tokens} x {size:,} fp32"
    add(work, "credit, torch", lambda: nats(credit.token_statistics(x, y, ids), size))
    add(work, "torch naive eager", lambda: peers.naive(x, y, ids))
    add(work, "torch careful eager", lambda: peers.careful(x, y, ids))
    for name, function in (("naive", peers.naive), ("careful", peers.careful)):
        compiled = torch.compile(function, dynamic=False)
        add(work, f"torch.compile({name})", lambda c=compiled: c(x, y, ids))
    low = x.bfloat16(), y.bfloat16()
    add(
        work.replace("fp32", "bf16"),
        "credit, torch",
        lambda: nats(credit.token_statistics(*low, ids), size),
        (*low, ids),
        moved // 2,
    )
    add(
        work.replace("fp32", "bf16"),
        "torch naive eager",
        lambda: peers.naive(*low, ids),
        (*low, ids),
        moved // 2,
    )
    arrays = x.numpy(), y.numpy(), ids.numpy()
    add(work, "credit, numpy", lambda: nats(credit.token_statistics(*arrays), size))
    add(work, "numpy naive", lambda: peers.naive_numpy(*arrays))
    facts = {"threads": torch.get_num_threads()}
    if find_spec("jax"):
        facts |= run_jax(add, work, arrays, size)
    for tokens_, size_ in ((16, size), (64, size), (tokens, size // 16), (tokens, size // 4)):
        xs, ys, a = draw(tokens_, size_, torch.float32, "cpu")
        for who, function in (
            ("credit, torch", lambda x=xs, y=ys, a=a: credit.token_statistics(x, y, a)),
            ("torch naive eager", lambda x=xs, y=ys, a=a: peers.naive(x, y, a)),
        ):
            report.measure(f"{tokens_} x {size_:,} fp32", who, function, xs.numel(), 2 * xs.nbytes)
    print("written to", report.write(**facts))
    plot(report)


def run_jax(add: Any, work: str, arrays: Any, size: int) -> dict[str, Any]:
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
        add(work, who, lambda c=compiled: jax.block_until_ready(c(*given)))
        print(f"{'':24s}{who}: temporaries {facts[f'temporaries_mb, {who}']:.1f} MB")
    return facts


def run_gpu(quick: bool) -> None:
    """This GPU: kernels forward and backward, from hidden states, and the peers."""
    import peers_gpu

    report = Report("cuda", torch.cuda.get_device_name())
    source = torch.empty(2**31, dtype=torch.bfloat16, device="cuda").normal_()
    target = torch.empty_like(source)
    report.copy = (
        2 * source.nbytes / float(np.median(time_gpu(lambda a=target, b=source: a.copy_(b))[0])) / 1e9
    )
    print(f"{report.name}, copy {report.copy:.0f} GB/s (read and write)")
    del source, target
    deadline = time.monotonic() + 7.5 * 60
    for place, (name, tokens, size, kind) in enumerate(FULL[:1] if quick else FULL):
        if time.monotonic() > deadline:
            print("7.5 minutes are over; left out:", ", ".join(f[0] for f in FULL[place:]))
            break
        peers_gpu.workload(
            report, name, draw(tokens, size, kind, "cuda"), first=place == 0, errors=errors, nats=nats
        )
        torch.cuda.empty_cache()
    if time.monotonic() < deadline:
        peers_gpu.from_hidden(report)
    if find_spec("jax") and time.monotonic() < deadline:
        peers_gpu.jax_rows(report, draw)
    print("written to", report.write(triton=__import__("triton").__version__))
    plot(report)


def plot(report: Report) -> None:
    """Time against N and against V, one line per peer."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4))
    for who in ("credit, torch", "torch naive eager"):
        rows = [row for row in report.rows if row["who"] == who and "ms" in row and "bf16" not in row["work"]]
        cells = [(*shape(row["work"]), row["ms"]) for row in rows if " x " in row["work"]]
        if not cells:
            continue
        most = max(n for n, _, _ in cells), max(v for _, v, _ in cells)
        for axis, along, fixed in ((axes[0], 0, 1), (axes[1], 1, 0)):
            line = sorted({(cell[along], cell[2]) for cell in cells if cell[fixed] == most[fixed]})
            axis.plot(*zip(*line, strict=True), marker="o", label=who)
    for axis, name in zip(axes, ("tokens", "vocabulary"), strict=True):
        axis.set(xlabel=name, ylabel="ms", xscale="log", yscale="log", title=report.name)
        axis.legend()
    figure.tight_layout()
    figure.savefig(RESULTS / f"token_statistics_{report.device}.png", dpi=100)


def shape(work: str) -> tuple[int, int]:
    tokens, size = work.split(" x ")
    return int(tokens), int(size.split()[0].replace(",", ""))


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--cpu", action="store_true")
    which.add_argument("--gpu", action="store_true")
    parser.add_argument("--tokens", type=int, default=192)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--quick", action="store_true", help="the headline only (GPU)")
    options = parser.parse_args()
    if options.gpu and not torch.cuda.is_available():
        sys.exit("no GPU here; --cpu measures the CPU paths")
    run_gpu(options.quick) if options.gpu else run_cpu(options.tokens, options.vocabulary)
