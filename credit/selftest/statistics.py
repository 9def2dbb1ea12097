"""The token statistics of one library and device against the oracle."""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

import credit
from credit.backends import choose_backend
from credit.backends.vocab.by_name import NAMES
from credit.selftest import statistics_oracle as oracle
from credit.selftest.places import Place
from credit.selftest.table import Row

Array = Any
TOKENS, SIZE, TEMPERATURE = (4, 6), 20_011, 0.7


class Inputs(NamedTuple):
    """Arrays of numpy's for one set of tokens: logits, and hidden states with two heads."""

    policy_logits: Array
    reference_logits: Array
    ids: Array
    hidden: Array
    policy_head: Array
    reference_head: Array


def check_statistics(place: Place) -> Iterator[Row]:
    """token_statistics, also by name and from hidden states, and log-probs with their entropy."""
    inputs = make_inputs()
    x, y, ids, hidden, head, other = inputs
    path, path_by_name = (
        choose_backend(place.put(x)).describe_path(place.put(x), also) for also in ((), NAMES)
    )
    expected = oracle.statistics(x, y, ids, TEMPERATURE)
    policy, reference = (hidden.astype("f8") @ side.T.astype("f8") for side in (head, other))
    expected_hidden = oracle.statistics(policy, reference, ids, TEMPERATURE)

    def from_logits(x: Array, y: Array, ids: Array) -> Any:
        return credit.token_statistics(x, y, ids, temperature=TEMPERATURE)

    def from_hidden(hidden: Array, head: Array, other: Array, ids: Array) -> Any:
        return credit.token_statistics_from_hidden(hidden, head, hidden, other, ids, temperature=TEMPERATURE)

    def by_name(x: Array, y: Array, ids: Array) -> Any:
        _, more = credit.token_statistics(x, y, ids, temperature=TEMPERATURE, also=NAMES)
        return [more[name] for name in NAMES]

    def log_probs(x: Array, ids: Array) -> Any:
        return credit.log_probs_and_entropy(x, ids, temperature=TEMPERATURE)

    def compare_four(fields: Sequence[Array], expected: oracle.Expected) -> float:
        return max(oracle.errors(fields, expected, SIZE).values())

    def compare_two(fields: Sequence[Array], expected: oracle.Expected) -> float:
        log_p, nats = fields
        log_prob_error = oracle.log_prob_error(log_p, expected.log_probs)
        return max(log_prob_error, oracle.entropy_error(nats, expected.entropy))

    def compare_by_name(fields: Sequence[Array], expected: dict[str, Array]) -> float:
        found = dict(zip(NAMES, fields, strict=True))
        return max(oracle.further_errors(found, expected).values())

    arrays, further = (hidden, head, other, ids), oracle.further(x, y, TEMPERATURE)
    yield _run(place, "token_statistics", path, from_logits, (x, y, ids), expected, compare_four)
    yield _run(place, "... by name", path_by_name, by_name, (x, y, ids), further, compare_by_name)
    yield _run(place, "... from hidden", path, from_hidden, arrays, expected_hidden, compare_four)
    yield _run(place, "log_probs_and_entropy", path, log_probs, (x, ids), expected, compare_two)


def make_inputs() -> Inputs:
    """Logits that differ by little and by much, some of them -inf, and hidden states."""
    rng = np.random.default_rng(0)
    x = 3.0 * rng.normal(size=(*TOKENS, SIZE)).astype(np.float32)
    scale = np.geomspace(1e-3, 1.0, x[..., 0].size).reshape(*TOKENS, 1)
    y = (x + scale * rng.normal(size=x.shape)).astype("f4")
    x[0, 0, :9000], y[0, 1, ::3] = -np.inf, -np.inf
    ids = rng.integers(9000, SIZE, size=TOKENS).astype(np.int32) // 3 * 3 + 1
    hidden, head, other = (rng.normal(size=(*n, 32)).astype("f4") for n in (TOKENS, (SIZE,), (SIZE,)))
    return Inputs(x, y, ids, 0.3 * hidden, head, head + np.float32(0.03) * other)


def _run(
    place: Place,
    what: str,
    path: str,
    function: Callable[..., Any],
    arrays: Sequence[Array],
    expected: Any,
    compare: Callable[[Sequence[Array], Any], float],
) -> Row:
    """A line for the function's second call, whose time holds no compilation."""
    given = [place.put(array) for array in arrays]
    try:
        [place.get(field) for field in function(*given)]
        start = time.perf_counter()
        fields = [np.asarray(place.get(field), np.float64) for field in function(*given)]
        seconds = time.perf_counter() - start
    except Exception:  # the table shows the error, and the exit status is 1
        return Row(place, what, path, float("inf"), 0.0, traceback.format_exc().splitlines()[-1])
    return Row(place, what, path, compare(fields, expected), seconds)
