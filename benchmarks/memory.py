"""The high-water mark of memory: this process's on a CPU, the allocator's on a GPU."""

import torch
from measuring import peak, reset_peak


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
