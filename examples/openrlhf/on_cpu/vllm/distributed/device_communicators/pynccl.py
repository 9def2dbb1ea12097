"""Sends weights by gloo where vLLM takes NCCL."""

from typing import Any

import torch
import torch.distributed as dist

from vllm.distributed.utils import StatelessProcessGroup


class PyNcclCommunicator:
    """Broadcasts within the group."""

    def __init__(self, group: StatelessProcessGroup, device: Any) -> None:
        self.group = group.group

    def broadcast(self, tensor: torch.Tensor, src: int, stream: Any = None) -> None:
        options = dist.BroadcastOptions()
        options.rootRank = src
        self.group.broadcast([tensor], options).wait()
