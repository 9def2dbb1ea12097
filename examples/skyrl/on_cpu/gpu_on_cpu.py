"""What SkyRL's workers call on torch.cuda and NCCL, on a CPU; the stand-in for flash-attn imports it."""

from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.device_mesh as device_mesh

from credit.adapters.post_import import call_after_import

FSDP = "skyrl.backends.skyrl_train.distributed.fsdp_utils"
WEIGHTS = "skyrl.backends.skyrl_train.weight_sync"
CPU = torch.device("cpu")
make_mesh, make_group, empty = device_mesh.init_device_mesh, dist.init_process_group, torch.empty


def nothing(name: str) -> Callable[..., None]:
    """A call that has nothing to do on a CPU; torch._dynamo wants one per name."""

    def call(*_: Any, **__: Any) -> None:
        pass

    call.__name__ = name
    return call


@wraps(make_mesh)
def mesh_on_cpu(device_type: str, *positional: Any, **named: Any) -> Any:
    return make_mesh("cpu", *positional, **named)


@wraps(make_group)
def group_on_gloo(backend: str | None = None, **named: Any) -> None:
    make_group("gloo", **named)


@wraps(empty)
def empty_on_cpu(*size: Any, device: Any = None, **named: Any) -> torch.Tensor:
    return empty(*size, device="cpu" if device == "cuda" else device, **named)


def use_mesh(module: ModuleType) -> None:
    """SkyRL has the function by its name where this module was imported first."""
    module.init_device_mesh = mesh_on_cpu


def use_sampler(module: ModuleType) -> None:
    """Weights go to the stand-in for vLLM."""

    def choose(weight_sync_backend: str, colocate_all: bool) -> type:
        from sampler_on_cpu import Transfer  # which imports the module itself

        return Transfer

    module.get_transfer_strategy_cls = choose


def install() -> None:
    names = ("set_device", "synchronize", "empty_cache", "manual_seed_all", "reset_peak_memory_stats")
    patches: dict[str, Callable[..., Any]] = {name: nothing(name) for name in names}
    patches |= {"current_device": lambda: CPU, "device_count": lambda: 1}
    for name, function in patches.items():
        setattr(torch.cuda, name, function)
    torch.Tensor.cuda = lambda self, *_, **__: self
    torch.empty = empty_on_cpu
    device_mesh.init_device_mesh = dist.init_device_mesh = mesh_on_cpu
    dist.init_process_group = group_on_gloo
    call_after_import(FSDP, use_mesh)
    call_after_import(WEIGHTS, use_sampler)


install()
