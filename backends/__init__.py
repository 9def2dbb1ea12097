"""Fast paths for the statistics over the vocabulary, chosen by the array's library; see README.md here."""

import os
from types import ModuleType
from typing import Any

from array_api_compat import is_jax_array, is_numpy_array, is_torch_array

from credit.backends import array_api

FORCE = "CREDIT_BACKEND"


def choose_backend(array: Any) -> ModuleType:
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
