"""Fast paths for the statistics over the vocabulary, chosen by the array's library; see README.md here."""

import os
from typing import Any

from array_api_compat import is_jax_array, is_numpy_array, is_torch_array

from credit.backends import array_api
from credit.backends.protocol import Backend, ShardedBackend

FORCE = "CREDIT_BACKEND"


def choose_backend(array: Any) -> Backend:
    """The backend for this array's library, which the caller has thereby imported already."""
    forced = os.environ.get(FORCE, "")
    if forced not in ("", "array_api"):
        raise ValueError(f"{FORCE} is {forced!r}; it may be 'array_api' (the reference) or unset")
    if is_torch_array(array) and not forced:
        from credit.backends.torch import backend as torch_backend

        return torch_backend
    if is_jax_array(array) and not forced:
        from credit.backends.jax import backend as jax_backend

        return jax_backend
    if is_numpy_array(array) and not forced:
        from credit.backends.numpy import backend as numpy_backend

        return numpy_backend
    return array_api


def choose_sharded_backend(array: Any) -> ShardedBackend:
    """The backend for a vocabulary that is sharded over ranks; a ValueError if it has no such functions."""
    backend = choose_backend(array)
    if not isinstance(backend, ShardedBackend):
        library = type(array).__module__.split(".")[0]
        forced = f" and {FORCE} unset" if os.environ.get(FORCE) else ""
        raise ValueError(
            f"process_group= was given with arrays of {library}; a sharded vocabulary needs torch tensors, "
            f"or JAX arrays inside shard_map{forced}"
        )
    return backend
