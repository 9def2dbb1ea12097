"""What OpenRLHF's workers call on torch.cuda, on a CPU; the stand-ins beside this file import it."""

from collections.abc import Callable
from typing import Any

import torch
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


for name in ("set_device", "synchronize", "empty_cache", "current_stream"):
    setattr(torch.cuda, name, nothing(name))
torch.cuda.current_device = lambda: Device("cpu")
