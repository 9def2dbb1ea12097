"""Ray with workers that use credit's classes, or an error: never a run with other advantages."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import ray

from credit.adapters.openrlhf import worker_setup

SETUP = "worker_process_setup_hook"


def refuse_running_ray() -> None:
    """A RuntimeError where Ray runs already, since OpenRLHF would then use its workers as they are."""
    if ray.is_initialized():
        raise RuntimeError(
            "Ray was initialised before credit could set its workers up; start the program without ray.init "
            "(a cluster is found by RAY_ADDRESS)"
        )


def with_worker_setup(init: Callable[..., Any]) -> Callable[..., Any]:
    """ray.init whose workers install credit's import hook; a RuntimeError if a worker then did not."""

    @wraps(init)
    def initialise(*args: Any, runtime_env: dict[str, Any] | None = None, **named: Any) -> Any:
        runtime_env = dict(runtime_env or {})
        if SETUP in runtime_env:
            raise RuntimeError(f"runtime_env has a {SETUP} of its own, which credit needs; leave it out")
        runtime_env[SETUP] = f"{worker_setup.__name__}.{worker_setup.install_import_hook.__name__}"
        context = init(*args, runtime_env=runtime_env, **named)
        if not ray.get(ray.remote(num_cpus=0)(worker_setup.is_installed).remote()):
            raise RuntimeError(
                f"a worker of Ray {ray.__version__} started without credit's {SETUP} and would compute "
                "OpenRLHF's own advantages; use a Ray that runs it (2.55 does), with credit installed on "
                "every node"
            )
        return context

    return initialise
