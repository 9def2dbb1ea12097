"""Calls estimators on an array library with numpy arrays in and out."""

from credit import Credit, Rollouts

LIBRARIES = ("numpy", "torch", "jax", "strict")  # the parameters of the fixture `library`

# XLA's CPU compiler without LLVM's optimisation and with its older code generator.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def quick_jit(function):
    """jax.jit in a third of its time to compile, for what does not hang on the last bits."""
    import jax

    return jax.jit(function, compiler_options=QUICK)


def arrays(library, rollouts):
    """The same rollouts as arrays of the library."""
    return Rollouts(*(None if field is None else library.asarray(field) for field in rollouts))


def run(library, estimator, rollouts, *, quick=True):
    """The estimator's result, computed by the library (jitted on JAX), as numpy arrays.

    Unless `quick`, JAX compiles as it does for users: where the result is held to the formula, or two
    programs to the same bits.
    """
    call = library.quick if quick else library.call
    result = call(estimator)(arrays(library, rollouts))
    metrics = {name: library.numpy(value) for name, value in result.metrics.items()}
    return Credit(library.numpy(result.advantages), library.numpy(result.weights), metrics)
