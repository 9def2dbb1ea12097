"""A checkpoint engine of verl's, ray_cpu: weights go to rollout servers of their own through Ray."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import ray
import torch
from verl.checkpoint_engine.base import CheckpointEngine, CheckpointEngineRegistry

Weights = dict[str, torch.Tensor]
NAME = "ray_cpu_weights"


class Shelf:
    """The newest weights, by the step that they were sent for."""

    def __init__(self) -> None:
        self.step: int | None = None
        self.weights: Weights = {}

    def put(self, step: int, weights: Weights) -> None:
        self.step, self.weights = step, weights

    def take(self, step: int) -> Weights | None:
        return self.weights if self.step == step else None


def find_shelf() -> Any:
    """The one shelf of the run, whoever asks first."""
    return ray.remote(num_cpus=0)(Shelf).options(name=NAME, get_if_exists=True, lifetime="detached").remote()


@CheckpointEngineRegistry.register("ray_cpu")
class RayCheckpointEngine(CheckpointEngine):
    """Sends the weights of rank 0, which are whole."""

    def __init__(self, bucket_size: int, is_master: bool = False) -> None:
        self.is_master = is_master

    def prepare(self) -> dict[str, Any]:
        return {}

    @classmethod
    def build_topology(cls, trainers: int, rollouts: int, metadata: Any) -> tuple[dict, dict]:
        return {}, {}

    def init_process_group(self, **_: Any) -> None:
        """Ray needs none."""

    def finalize(self) -> None:
        """There is no buffer to free."""

    async def send_weights(self, weights: Iterator, global_steps: int | None = None) -> dict[str, Any]:
        # Every rank has to drain the generator: gathering a shard is collective.
        whole = {name: tensor.detach().float().cpu().clone() for name, tensor in weights}
        if self.is_master:
            await find_shelf().put.remote(global_steps or 0, whole)
        return {}

    async def receive_weights(self, global_steps: int | None = None) -> AsyncIterator:
        shelf = find_shelf()
        while (weights := await shelf.take.remote(global_steps or 0)) is None:
            await asyncio.sleep(0.1)
        for pair in weights.items():
            yield pair
