"""OpenRLHF's training command with credit's estimators, on a CPU: python -m openrlhf_on_cpu <flags>

Takes the flags of `python -m credit.adapters.openrlhf`. Beside the stand-ins for flash-attn and vLLM in
this folder, only Ray and the choice of the attention are told of the missing GPU.
"""

import runpy
from functools import wraps
from typing import Any

import openrlhf.utils
import ray

GPUS = 4  # logical ones, so that placement works as usual
OBJECT_STORE = 200 * 2**20  # bytes
ENVIRONMENT = {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}


def small(init: Any) -> Any:
    """ray.init with logical GPUs and little memory."""

    @wraps(init)
    def initialise(*args: Any, runtime_env: dict[str, Any], **named: Any) -> Any:
        runtime_env = runtime_env | {"env_vars": runtime_env["env_vars"] | ENVIRONMENT}
        return init(
            *args,
            runtime_env=runtime_env,
            num_cpus=12,
            num_gpus=GPUS,
            object_store_memory=OBJECT_STORE,
            include_dashboard=False,
            **named,
        )

    return initialise


def with_sdpa(get_strategy: Any) -> Any:
    """openrlhf.utils.get_strategy with sdpa in place of flash attention, which packing sets too."""

    @wraps(get_strategy)
    def get(args: Any) -> Any:
        if "flash" in args.ds.attn_implementation:
            args.ds.attn_implementation = "sdpa"
        return get_strategy(args)

    return get


if __name__ == "__main__":
    ray.init = small(ray.init)
    openrlhf.utils.get_strategy = with_sdpa(openrlhf.utils.get_strategy)
    runpy.run_module("credit.adapters.openrlhf", run_name="__main__", alter_sys=True)
