"""What OpenRLHF's workers call on torch.cuda, on a CPU; the stand-ins beside this file import it."""

import os
import types
from collections.abc import Callable
from typing import Any

import ray
import torch
from torch.multiprocessing import reductions
from torch.overrides import TorchFunctionMode


class Device(str):
    """A device for .to() and device=, whose number is 0 where OpenRLHF writes f"cuda:{device}"."""

    def __format__(self, spec: str) -> str:
        return "0"


class CudaIsCPU(TorchFunctionMode):
    """Makes torch functions take device="cuda" for the CPU while it is entered."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("device") == "cuda":
            kwargs["device"] = "cpu"
        return function(*args, **kwargs)


def nothing(name: str) -> Callable[..., None]:
    """A call that has nothing to do on a CPU; torch._dynamo wants one per name."""

    def call(*_: Any, **__: Any) -> None:
        pass

    call.__name__ = name
    return call


def get_properties(device: Any) -> types.SimpleNamespace:
    """Of a GPU: its name is the number that Ray gave this process, as the UUID of a real one is its own."""
    return types.SimpleNamespace(uuid=f"GPU-{int(ray.get_gpu_ids()[0])}")


def share_tensor(tensor: torch.Tensor) -> tuple[Callable[..., torch.Tensor], tuple]:
    """A handle of the tensor's memory for another process, where CUDA gives an IPC handle.

    As with CUDA's, nothing is copied on the way, the memory is there for as long as this process keeps the
    tensor, and the seventh argument is the number of the device, which the receiver replaces by its own.
    """
    shared = torch.empty_like(tensor, memory_format=torch.contiguous_format).copy_(tensor)
    storage = shared.untyped_storage()
    manager, handle, size = storage._share_filename_cpu_()
    tensor.set_(shared)  # the caller's tensor lies in the shared memory from here on, and keeps it alive
    return open_shared, (tuple(shared.shape), shared.dtype, manager, handle, size, os.getpid(), 0)


def open_shared(
    shape: tuple, dtype: torch.dtype, manager: bytes, handle: bytes, size: int, owner: int, device: int
) -> torch.Tensor:
    """The tensor of a handle, in another process than its owner's, which CUDA refuses too."""
    if os.getpid() == owner:
        raise RuntimeError("an IPC handle cannot be opened by the process that made it")
    if device != 0:
        raise RuntimeError(f"device {device}: Ray lets a process see one GPU, number 0")
    storage = torch.UntypedStorage._new_shared_filename_cpu(manager, handle, size)
    return torch.empty(0, dtype=dtype).set_(storage).view(shape)


for name in ("set_device", "synchronize", "empty_cache", "current_stream"):
    setattr(torch.cuda, name, nothing(name))
torch.cuda.current_device = lambda: Device("cpu")
torch.cuda.get_device_properties = get_properties
reductions.reduce_tensor = share_tensor  # OpenRLHF imports it where it sends weights by IPC
