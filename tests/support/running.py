"""Calls estimators on an array library with numpy arrays in and out."""

import pytest

from credit import Credit
from credit.fields import map_arrays

LIBRARIES = ("numpy", "torch", "jax", "strict")  # the parameters of the fixture `library`


def on_numpy(name, values, *, also=(), everywhere=(), label=str):
    """Parametrises the fixture `library` and `name`: each value on numpy and on the libraries in `also`.

    A property that holds on numpy holds on a library that agrees with the oracle, but for its last bits and
    its types. So the other libraries take the values in `everywhere` (or of that name), and what is left out
    is marked slow.
    """

    def marks(library, value):
        key = getattr(value, "name", value)
        return () if library in ("numpy", *also) or key in everywhere else pytest.mark.slow

    pairs = [
        pytest.param(library, value, id=f"{library}-{label(value)}", marks=marks(library, value))
        for library in LIBRARIES
        for value in values
    ]
    return pytest.mark.parametrize(("library", name), pairs, indirect=["library"])


# XLA's CPU compiler without LLVM's optimisation and with its older code generator.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def quick_jit(function):
    """jax.jit in a third of its time to compile, for what does not hang on the last bits."""
    import jax

    return jax.jit(function, compiler_options=QUICK)


def arrays(library, rollouts):
    """The same rollouts as arrays of the library."""
    return map_arrays(library.asarray, rollouts)


def run(library, estimator, rollouts, *, quick=True):
    """The estimator's result, computed by the library (jitted on JAX), as numpy arrays.

    Unless `quick`, JAX compiles as it does for users: where the result is held to the formula, or two
    programs to the same bits.
    """
    call = library.quick if quick else library.call
    result = call(estimator)(arrays(library, rollouts))
    metrics = {name: library.numpy(value) for name, value in result.metrics.items()}
    return Credit(library.numpy(result.advantages), library.numpy(result.weights), metrics)
