"""Gradients of one library and device at ratios that overflow, and where JAX traces around constants."""

import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import credit
from credit.backends import choose_backend
from credit.selftest import statistics_oracle as oracle
from credit.selftest.places import Place
from credit.selftest.table import Row

Array = Any
TOLERANCE = 1e-5

# The first token is usual. The others' ratios overflow, and the clip, the dual clip or A = 0 hold them back.
NEW = np.asarray([[-1.0, -0.1, -0.1, -0.1, -0.1]], np.float32)
OLD = np.asarray([[-1.0, -89.1, -np.inf, -89.1, -89.1]], np.float32)
ADVANTAGES = np.asarray([[1.0, 1.0, 1.0, -1.0, 0.0]], np.float32)
LOSS, GRADIENT = (-1.0 - 1.2 - 1.2 + 3.0 + 0.0) / 5, np.asarray([[-1.0, 0.0, 0.0, 0.0, 0.0]]) / 5


def check_loss(place: Place) -> Iterator[Row]:
    """The policy loss at log-ratios at which exp overflows, and its gradient where the library has any."""
    has_gradient = place.library in ("torch", "jax")

    def measure() -> float:
        policy_loss = credit.PolicyLoss(dual_clip=3.0, aggregation="token_mean")
        old, advantages, mask = (place.put(array) for array in (OLD, ADVANTAGES, np.ones(OLD.shape, bool)))

        def loss(new: Array) -> Array:
            return policy_loss(new, old, advantages, mask)[0]

        if not has_gradient:
            return _compare((place.get(loss(place.put(NEW))), LOSS))
        value, gradient = _value_and_grad(place, loss, NEW)
        return _compare((value, LOSS), (gradient, GRADIENT))

    yield _run(
        place, "loss at overflowing ratios", "array API", measure, "" if has_gradient else "no gradient"
    )


def check_closed_over_ids(place: Place) -> Iterator[Row]:
    """On JAX alone: the gradient of log-probs in a jitted function that closes over the ids."""
    if place.library != "jax":
        return
    rng = np.random.default_rng(0)
    logits, ids = rng.normal(size=(4, 50)).astype("f4"), rng.integers(50, size=4).astype(np.int32)
    path = choose_backend(place.put(logits)).describe_path(place.put(logits))

    def measure() -> float:
        import jax

        constant = place.put(ids)

        def total(logits: Array) -> Array:
            return credit.selected_log_probs(logits, constant).sum()

        value, gradient = _value_and_grad(place, jax.jit(total), logits)
        log_p = oracle.log_softmax(logits)
        right = (np.arange(50) == ids[:, None]) - np.exp(log_p)
        return _compare((value, oracle.selected(log_p, ids).sum()), (gradient, right))

    yield _run(place, "ids closed over, jit and grad", path, measure)


def _value_and_grad(place: Place, function: Callable[[Array], Array], at: Array) -> tuple[Array, Array]:
    """The function's value and gradient, as numpy arrays."""
    array = place.put(at)
    if place.library == "jax":
        import jax

        value, gradient = jax.value_and_grad(function)(array)
        return place.get(value), place.get(gradient)
    array = array.clone().requires_grad_()
    value = function(array)
    value.backward()
    return place.get(value.detach()), place.get(array.grad)


def _compare(*pairs: tuple[Array, Array]) -> float:
    """The largest error of actual and expected arrays in units of its bound; NaN if any is."""
    errors = [np.max(np.abs(np.asarray(actual, np.float64) - expected)) for actual, expected in pairs]
    return float(np.max(errors)) / TOLERANCE


def _run(place: Place, what: str, path: str, measure: Callable[[], float], note: str = "") -> Row:
    """A line of the table, whose time holds compilation."""
    start = time.perf_counter()
    try:
        error = measure()
    except Exception as raised:  # the table shows the error, and the exit status is 1
        # Its own first line: after it, JAX says how it filters tracebacks.
        error, note = float("inf"), traceback.format_exception_only(raised)[0].splitlines()[0]
    return Row(place, what, path, error, time.perf_counter() - start, note)
