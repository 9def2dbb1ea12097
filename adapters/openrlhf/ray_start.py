"""Starts Ray with credit's setup hook, and fails if a worker lacks it."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import ray

from credit.adapters.openrlhf import plugins, worker_setup

SETUP = "worker_process_setup_hook"


def refuse_running_ray() -> None:
    """Raises RuntimeError if Ray is running, since OpenRLHF would use its workers, which lack the hook."""
    if ray.is_initialized():
        raise RuntimeError(
            "Ray was initialized before credit could set its workers up; start the program without ray.init "
            "(a cluster is found by RAY_ADDRESS)"
        )


def with_worker_setup(init: Callable[..., Any], modules: Sequence[str] = ()) -> Callable[..., Any]:
    """ray.init that gives workers credit's setup hook; it raises RuntimeError if a worker runs without it.

    So it does if a worker does not find one of the plugins' `modules`.
    """

    @wraps(init)
    def initialize(*args: Any, runtime_env: dict[str, Any] | None = None, **named: Any) -> Any:
        runtime_env = dict(runtime_env or {})
        if SETUP in runtime_env:
            raise RuntimeError(f"runtime_env has a {SETUP} of its own, which credit needs; leave it out")
        runtime_env[SETUP] = f"{worker_setup.__name__}.{worker_setup.install_import_hook.__name__}"
        runtime_env["env_vars"] = (runtime_env.get("env_vars") or {}) | plugins.files_by_name()
        context = init(*args, runtime_env=runtime_env, **named)
        if not ray.get(ray.remote(num_cpus=0)(worker_setup.is_installed).remote()):
            raise RuntimeError(
                f"a worker of Ray {ray.__version__} started without credit's {SETUP} and would compute "
                "OpenRLHF's own advantages; use a Ray that runs it (2.55 does), with credit installed on "
                "every node"
            )
        missing = ray.get(ray.remote(num_cpus=0)(plugins.list_missing).remote(list(modules)))
        if missing:
            raise RuntimeError(
                f"Ray's workers do not find {', '.join(missing)} of {plugins.FLAG}; install it on every "
                "node, or give the path of a .py file that every node has"
            )
        return context

    return initialize
