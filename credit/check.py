"""`python -m credit.check`: every estimator and the token statistics on every array library and device here.

Each is compared with float64 answers from plain loops (selftest/oracle.py), within the documented bounds. The
exit status is 1 where a bound is broken or a backend fails. An estimator without loops of its own is compared
with itself in float64 numpy, and the table says so.
"""

import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

import credit
from credit.backends import choose_backend
from credit.selftest.oracle import ORACLES, token_statistics

Array = Any
TOKENS, SIZE, TEMPERATURE = (4, 6), 20_011, 0.7
TOLERANCE = 2e-5  # of an advantage in float32


class Place(NamedTuple):
    """A library on a device: how arrays get there and back."""

    library: str
    version: str
    device: str
    put: Callable[[Any], Array]
    get: Callable[[Array], Any]


class Row(NamedTuple):
    """A line of the table; the error is in units of its bound."""

    place: Place
    what: str
    path: str
    error: float
    seconds: float
    note: str = ""


def main() -> int:
    """Prints the table; 0 if every bound holds."""
    rows = [row for place in list_places() for row in (*check_statistics(place), *check_estimators(place))]
    print(
        f"{'library':17s}{'version':14s}{'device':22s}{'what':34s}{'path':26s}{'error/bound':>11s}{'ms':>9s}"
    )
    for row in rows:
        library, version, device, *_ = row.place
        print(
            f"{library:17s}{version:14.13s}{device:22.21s}{row.what:34s}{row.path:26s}"
            f"{row.error:11.3g}{1e3 * row.seconds:9.1f}  {row.note}"
        )
    broken = [row for row in rows if not row.error <= 1.0]
    print(f"{len(rows)} checks, {len(broken)} broken")
    return 1 if broken else 0


def list_places() -> Iterator[Place]:
    """Every library that is installed, on each of its devices."""
    yield Place("numpy", np.__version__, "cpu", np.asarray, np.asarray)
    if find_spec("array_api_strict"):
        strict = import_module("array_api_strict")
        version = metadata.version("array_api_strict")
        yield Place("array_api_strict", version, "cpu", strict.asarray, np.asarray)
    if find_spec("torch"):
        yield from _torch()
    if find_spec("jax"):
        yield from _jax()


def _torch() -> Iterator[Place]:
    torch = import_module("torch")

    def at(device: str, name: str) -> Place:
        def put(array: Any) -> Any:
            return torch.as_tensor(array).to(device)

        return Place("torch", torch.__version__, name, put, lambda array: array.cpu().numpy())

    yield at("cpu", "cpu")
    for index in range(torch.cuda.device_count()):
        yield at(f"cuda:{index}", f"{index} {torch.cuda.get_device_name(index)}")


def _jax() -> Iterator[Place]:
    jax = import_module("jax")

    def at(device: Any) -> Place:
        def put(array: Any) -> Any:
            return jax.device_put(array, device)

        return Place("jax", jax.__version__, f"{device.id} {device.device_kind}", put, np.asarray)

    platforms = {"cpu", jax.default_backend()}
    for platform in sorted(platforms):
        yield from (at(device) for device in jax.devices(platform))


def check_statistics(place: Place) -> Iterator[Row]:
    """token_statistics, the same from hidden states, and log-probs with their entropy."""
    rng = np.random.default_rng(0)
    x = 3.0 * rng.normal(size=(*TOKENS, SIZE)).astype(np.float32)
    y = (x + np.geomspace(1e-3, 1.0, x[..., 0].size).reshape(*TOKENS, 1) * rng.normal(size=x.shape)).astype(
        "f4"
    )
    x[0, 0, :9000], y[0, 1, ::3] = -np.inf, -np.inf
    ids = rng.integers(9000, SIZE, size=TOKENS).astype(np.int32) // 3 * 3 + 1
    hidden, head, other = (rng.normal(size=(*n, 32)).astype("f4") for n in (TOKENS, (SIZE,), (SIZE,)))
    hidden, other = 0.3 * hidden, head + np.float32(0.03) * other
    path = choose_backend(place.put(x)).describe_path(place.put(x))

    def from_logits(x: Array, y: Array, ids: Array) -> Any:
        return credit.token_statistics(x, y, ids, temperature=TEMPERATURE)

    def from_hidden(hidden: Array, head: Array, other: Array, ids: Array) -> Any:
        return credit.token_statistics_from_hidden(hidden, head, hidden, other, ids, temperature=TEMPERATURE)

    def log_probs(x: Array, ids: Array) -> Any:
        return credit.log_probs_and_entropy(x, ids, temperature=TEMPERATURE)

    expected = token_statistics(x, y, ids, TEMPERATURE)
    wide: Any = [hidden.astype(np.float64) @ side.T.astype(np.float64) for side in (head, other)]
    yield _compare(place, "token_statistics", path, from_logits, (x, y, ids), expected, _to_nats)
    expected_hidden = token_statistics(wide[0], wide[1], ids, TEMPERATURE)
    yield _compare(
        place, "... from hidden", path, from_hidden, (hidden, head, other, ids), expected_hidden, _to_nats
    )
    yield _compare(
        place, "log_probs_and_entropy", path, log_probs, (x, ids), expected[::2], lambda fields: fields
    )


REQUIRED: dict[str, Any] = {"mix": {"parts": ((0.7, "grpo"), (0.3, "dgpo"))}}  # settings without a default


def check_estimators(place: Place) -> Iterator[Row]:
    """The advantages [N, T] of every registered estimator with its default settings."""
    rollouts = _make_rollouts()
    for name in credit.names():
        estimator = credit.get(name, **REQUIRED.get(name, {}))
        loops = ORACLES.get(name)
        given = {k: place.put(v) for k, v in rollouts._asdict().items() if v is not None}
        wide = credit.Rollouts(**{k: np.asarray(v, "f8") if v.dtype.kind == "f" else v
                                  for k, v in rollouts._asdict().items() if v is not None})  # fmt: skip
        note = "" if loops else "against itself in float64 numpy"
        expected = loops(estimator, wide) if loops else estimator(wide).advantages
        start = time.perf_counter()
        try:
            actual = place.get(estimator(credit.Rollouts(**given)).advantages)
            scale = np.maximum(1.0, np.abs(expected))
            error = float(np.max(np.abs(actual - expected) / scale)) / TOLERANCE
        except Exception:
            error, note = float("inf"), traceback.format_exc().splitlines()[-1]
        yield Row(place, name, "array API", error, time.perf_counter() - start, note)


def _compare(
    place: Place, what: str, path: str, function: Any, arrays: Any, expected: Any, read: Callable[..., Any]
) -> Row:
    given = [place.put(array) for array in arrays]
    try:
        [place.get(field) for field in function(*given)]  # compiles
        start = time.perf_counter()
        fields = [np.asarray(place.get(field), np.float64) for field in function(*given)]
        seconds = time.perf_counter() - start
    except Exception:
        return Row(place, what, path, float("inf"), 0.0, traceback.format_exc().splitlines()[-1])
    errors = [
        _error_in_bounds(*pair) for pair in zip(KINDS[len(fields)], read(fields), expected, strict=True)
    ]
    return Row(place, what, path, max(errors), seconds)


KINDS = {4: ("log", "log", "entropy", "deviation"), 2: ("log", "entropy")}


def _to_nats(fields: list[Any]) -> list[Any]:
    return [*fields[:2], fields[2] * np.log(SIZE), fields[3]]


def _error_in_bounds(kind: str, actual: Any, expected: Any) -> float:
    """The largest error in units of its bound; NaN where one is wrong."""
    relative = np.where(expected < 1e-7, 1e-2, 1e-3) * expected
    bounds = {
        "log": 1e-5 + 3e-7 * np.abs(np.where(np.isinf(expected), 0.0, expected)),
        "entropy": np.full_like(expected, 5e-6),
        "deviation": np.where(expected < 1e-9, 1e-6, np.minimum(1e-6, relative)),
    }
    same = actual == expected
    return float(np.max(np.where(same, 0.0, np.abs(np.where(same, 0.0, actual - expected)) / bounds[kind])))


def _make_rollouts() -> credit.Rollouts:
    rng = np.random.default_rng(1)
    groups = np.asarray([0, 0, 1, 0, 1, 2, 3, 3], np.int32)
    mask = np.arange(10) < rng.integers(1, 11, size=(8, 1))
    floats = {
        name: rng.random((8, 10)).astype("f4")
        for name in ("normalized_entropy", "deviation", "token_rewards")
    }
    floats |= {
        n: -3 * rng.random((8, 10)).astype("f4")
        for n in ("log_probs", "reference_log_probs", "rollout_log_probs")
    }
    rewards, baseline = (rng.normal(size=8).astype("f4") for _ in range(2))
    turns = np.cumsum(rng.random((8, 10)) < 0.3, axis=1).astype(np.int32)
    rewards[6:] = 0.3  # a group without signal
    return credit.Rollouts(
        rewards,
        groups,
        mask,
        **floats,
        turns=turns,
        baseline_rewards=baseline,
        progress=np.asarray(0.5, "f4"),
    )


if __name__ == "__main__":
    sys.exit(main())
