"""SkyRL's command with credit's estimators, on a CPU: trainer.override_entrypoint=skyrl_on_cpu

Beside the stand-ins for flash-attn and vLLM in this folder, only Ray is told of GPUs that are not there.
"""

from functools import wraps
from typing import Any

import ray
from experiment_on_cpu import Experiment

from credit.adapters.skyrl import entrypoint

GPUS = 4  # logical ones, so that placement works as usual
OBJECT_STORE = 200 * 2**20  # bytes


def with_gpus(init: Any) -> Any:
    """ray.init with logical GPUs and little memory."""

    @wraps(init)
    def initialize(*positional: Any, **named: Any) -> Any:
        small = {"num_cpus": 12, "num_gpus": GPUS, "object_store_memory": OBJECT_STORE}
        return init(*positional, include_dashboard=False, **small, **named)

    return initialize


def main() -> None:
    ray.init = with_gpus(ray.init)
    entrypoint.main(Experiment)
