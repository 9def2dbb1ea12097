"""A platform of verl's without an accelerator."""

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry, set_platform


def nothing(*_: Any, **__: Any) -> None:
    """Does what an accelerator call can do on a CPU."""


def zero(*_: Any, **__: Any) -> int:
    """The accelerator memory in use."""
    return 0


# torch.cpu with what verl's workers call on torch.cuda besides.
DEVICE = types.SimpleNamespace(**{name: getattr(torch.cpu, name) for name in dir(torch.cpu)})
for name in ("empty_cache", "ipc_collect", "reset_peak_memory_stats", "set_device"):
    setattr(DEVICE, name, nothing)
for name in ("max_memory_allocated", "max_memory_reserved", "memory_allocated", "memory_reserved"):
    setattr(DEVICE, name, zero)
DEVICE.mem_get_info = lambda *_: (1 << 34, 1 << 34)
DEVICE.manual_seed = DEVICE.manual_seed_all = torch.manual_seed
DEVICE.get_rng_state, DEVICE.set_rng_state = torch.get_rng_state, torch.set_rng_state
DEVICE.get_device_name = lambda *_: "cpu"
DEVICE.memory = types.SimpleNamespace(_set_allocator_settings=nothing)


@PlatformRegistry.register(platform="cpu")
class CPUPlatform(PlatformBase):
    """Ray is told of logical GPUs (ray_init.num_gpus), one per rank, so that placement works as usual."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = DEVICE
    manual_seed = manual_seed_all = staticmethod(torch.manual_seed)
    set_device = synchronize = set_allocator_settings = empty_cache = nothing
    profiler_start = profiler_stop = cudart = nothing

    def is_available(self) -> bool:
        return True

    def current_device(self) -> torch.device:
        return torch.device("cpu")  # verl hands it to .to()

    def device_count(self) -> int:
        return 1

    def get_device_capability(self, *_: Any) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, *_: Any) -> Iterator[None]:
        yield

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False


set_platform(CPUPlatform())
