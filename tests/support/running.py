"""Calls estimators on an array library with numpy arrays in and out."""

from credit import Credit, Rollouts


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
