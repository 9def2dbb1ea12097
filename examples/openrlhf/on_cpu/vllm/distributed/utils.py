"""The group of trainer and engines in which weights are sent."""

from datetime import timedelta
from typing import NamedTuple

import torch.distributed as dist


class StatelessProcessGroup(NamedTuple):
    """A gloo group beside torch's default one."""

    group: dist.ProcessGroupGloo

    @classmethod
    def create(cls, host: str, port: int, rank: int, world_size: int) -> "StatelessProcessGroup":
        store = dist.TCPStore(host, port, world_size, is_master=rank == 0)
        return cls(dist.ProcessGroupGloo(store, rank, world_size, timedelta(minutes=5)))
