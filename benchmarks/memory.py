"""The high-water mark of memory: this process's on a CPU, the allocator's on a GPU."""

import sys
from contextlib import suppress
from pathlib import Path

import torch

try:
    import resource
except ImportError:  # on Windows
    resource = None


def start(device: str) -> float:
    """Sets the mark back to what is in use, and gives that in bytes."""
    if device == "cpu":
        return reset_peak()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def highest(device: str) -> float:
    """The mark in bytes, once the device is done."""
    if device == "cpu":
        return peak()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def reset_peak() -> float:
    """Sets the kernel's high-water mark back, where it allows that; the current mark in bytes."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return peak()
    return peak()


def peak() -> float:
    """The current mark; NaN on Windows, which has neither way to ask."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return 1024.0 * int(line.split()[1])
    if resource is None:
        return float("nan")
    unit = 1.0 if sys.platform == "darwin" else 1024.0  # macOS counts bytes, others kilobytes
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
