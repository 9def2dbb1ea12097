"""Statistics from hidden states and heads: as from the explicit logits, which are never held whole."""

import tracemalloc

import numpy as np
import pytest
import statistics_oracle as oracle
from running import on_numpy

import credit

SIZE = 1_003
SHAPES = {
    "policy_hidden": (2, 3, 16),
    "policy_head": (SIZE, 16),
    "reference_hidden": (2, 3, 24),
    "reference_head": (SIZE, 24),
    "policy_bias": (SIZE,),
    "reference_bias": (SIZE,),
}
SETTINGS = {
    "plain": {},
    "scale": {"scale": 0.25},
    "soft cap": {"soft_cap": 3.0},
    "scale and soft cap": {"scale": 2.0, "soft_cap": 5.0},
}


@pytest.fixture
def drawn():
    """Hidden states of unlike width, heads, biases and ids."""
    rng = np.random.default_rng(3)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    return arrays | {"token_ids": rng.integers(SIZE, size=(2, 3)).astype(np.int32)}


def measure(library, arrays, **settings):
    def function(arrays):
        return credit.token_statistics_from_hidden(**arrays, **settings)

    given = {name: library.asarray(array) for name, array in arrays.items()}
    return [library.numpy(field) for field in library.call(function)(given)]


def logits(arrays, side, size=SIZE, **settings):
    parts = [arrays[f"{side}_hidden"], arrays[f"{side}_head"][:size]]
    bias = arrays.get(f"{side}_bias")
    return oracle.head_logits(*parts, None if bias is None else bias[:size], **settings)


def assert_within_bounds(actual, arrays, temperature=1.0, size=SIZE, **settings):
    x, y = (logits(arrays, side, size, **settings) for side in ("policy", "reference"))
    expected = oracle.statistics(x, y, arrays["token_ids"], temperature)
    used = oracle.errors(actual, expected, size)
    # The product of D terms in float32 is itself a few roundings from exact.
    assert max(used.values()) <= 2.0, used


@pytest.mark.parametrize(
    ("setting", "biased"),
    [*((setting, True) for setting in SETTINGS), ("plain", False), ("scale and soft cap", False)],
)
def test_against_explicit_float64_logits(library, drawn, setting, biased):
    if not biased:
        del drawn["policy_bias"], drawn["reference_bias"]
    actual = measure(library, drawn, **SETTINGS[setting])
    assert all(field.dtype == np.float32 and field.shape == (2, 3) for field in actual)
    assert_within_bounds(actual, drawn, **SETTINGS[setting])


@on_numpy("chunk", [7, 512, SIZE - 1, SIZE, 10**6], everywhere=[512, 10**6])
def test_any_chunk_gives_the_same(library, drawn, chunk):
    assert_within_bounds(measure(library, drawn, chunk=chunk, soft_cap=5.0), drawn, soft_cap=5.0)


def test_equal_to_token_statistics_on_explicit_logits(library, drawn):
    x, y = (logits(drawn, side, soft_cap=4.0).astype(np.float32) for side in ("policy", "reference"))
    ids = library.asarray(drawn["token_ids"])
    explicit = credit.token_statistics(library.asarray(x), library.asarray(y), ids, temperature=0.6)
    hidden = measure(library, drawn, temperature=0.6, soft_cap=4.0, chunk=100)
    for one, other in zip(explicit, hidden, strict=True):
        np.testing.assert_allclose(library.numpy(one), other, rtol=1e-6, atol=5e-6)


def test_one_bias_and_temperature_per_token(library, drawn):
    del drawn["reference_bias"]
    temperature = np.linspace(0.3, 3, 6, dtype=np.float32).reshape(2, 3)

    def function(arrays, temperature):
        return credit.token_statistics_from_hidden(**arrays, temperature=temperature, chunk=300)

    given = {name: library.asarray(array) for name, array in drawn.items()}
    actual = library.call(function)(given, library.asarray(temperature))
    assert_within_bounds([library.numpy(field) for field in actual], drawn, temperature)


@on_numpy("shape", [(), (5,), (0, 3), (2, 1, 2)], everywhere=[(), (0, 3), (2, 1, 2)])
def test_leading_shapes(library, drawn, shape):
    rng = np.random.default_rng(4)
    for name in ("policy_hidden", "reference_hidden"):
        drawn[name] = rng.normal(size=(*shape, drawn[name].shape[-1])).astype(np.float32)
    drawn["token_ids"] = rng.integers(SIZE, size=shape)
    actual = measure(library, drawn, chunk=400)
    assert all(field.shape == shape for field in actual)
    assert_within_bounds(actual, drawn)


def test_heads_padded_differently(library, drawn):
    padded = dict(drawn)
    for name, rows in (("policy_head", 5), ("policy_bias", 5), ("reference_head", 61)):
        tail = np.full((rows, *drawn[name].shape[1:]), np.nan, np.float32)
        padded[name] = np.concatenate([drawn[name], tail])
    padded["reference_bias"] = np.concatenate([drawn["reference_bias"], np.zeros(61, np.float32)])
    assert_within_bounds(measure(library, padded, vocab_size=SIZE, chunk=400), drawn)


def test_masked_tokens_are_zero_and_their_states_unread(library, drawn):
    mask = np.asarray([[True, False, True], [False, True, True]])
    spoiled = dict(drawn)
    spoiled["policy_hidden"] = np.where(mask[..., None], drawn["policy_hidden"], np.nan)
    spoiled["token_ids"] = np.where(mask, drawn["token_ids"], -100)
    given = {name: library.asarray(array) for name, array in spoiled.items()}
    actual = credit.token_statistics_from_hidden(**given, mask=library.asarray(mask))
    clean = measure(library, drawn)
    for field, expected in zip(actual, clean, strict=True):
        np.testing.assert_allclose(library.numpy(field), np.where(mask, expected, 0.0), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(library.numpy(field)[~mask], 0.0)


def test_identical_models_deviate_by_exactly_zero(library, drawn):
    for part in ("hidden", "head", "bias"):
        drawn[f"reference_{part}"] = drawn[f"policy_{part}"]
    np.testing.assert_array_equal(measure(library, drawn, chunk=100)[3], 0.0)


@pytest.mark.parametrize(("part", "sides"), [("head", ("policy", "reference")), ("both", ("policy",))])
@pytest.mark.parametrize("library", ["torch", "jax"], indirect=True)  # whose heads may be bfloat16
def test_bfloat16(library, drawn, part, sides):
    """Products of bfloat16 are summed in float32: only the inputs are rounded."""
    pytest.importorskip("ml_dtypes")
    names = [f"{s}_{p}" for s in sides for p in ("head", "hidden") if part in (p, "both")]
    rounded = {name: drawn[name].astype("bfloat16").astype(np.float32) for name in names}
    given = {name: library.asarray(array) for name, array in (drawn | rounded).items()}
    for name in names:
        array = given[name]
        given[name] = array.bfloat16() if library.name == "torch" else array.astype("bfloat16")
    function = library.call(lambda arrays: credit.token_statistics_from_hidden(**arrays, chunk=300))
    actual = function(given)
    assert all("float32" in str(field.dtype) for field in actual)
    assert_within_bounds([library.numpy(field) for field in actual], drawn | rounded)


def test_the_logits_are_never_held_whole_on_numpy():
    rng = np.random.default_rng(5)
    hidden, head = rng.normal(size=(64, 8)), rng.normal(size=(100_000, 8))
    hidden, head = hidden.astype(np.float32), head.astype(np.float32)
    ids = np.arange(64)
    credit.token_statistics_from_hidden(hidden[:1], head, hidden[:1], head, ids[:1])
    tracemalloc.start()
    try:
        credit.token_statistics_from_hidden(hidden, head, hidden + 1.0, head, ids, chunk=2_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 100_000 * 4 / 4  # bytes: a quarter of one model's logits


def test_tiles_are_cut_by_rows_too():
    """Many rows are multiplied a block at a time, each product at most `tile` entries."""
    from credit.backends import array_api
    from credit.backends.vocab import tiles

    rng = np.random.default_rng(6)
    hidden, head = rng.normal(size=(50, 3)), rng.normal(size=(90, 3))
    seen = []

    def make_tiles(source, dtype):
        tile = tiles.from_source(source, dtype)

        def counted(start, width):
            seen.append(source.hidden.shape[0] * width)
            return tile(start, width)

        return counted

    ids = np.arange(50)
    actual = array_api.token_statistics_from_hidden(
        hidden, head, 2 * hidden, head, ids, 1.0, chunk=40, tile=400, make_tiles=make_tiles
    )
    assert max(seen) == 400
    expected = oracle.statistics(hidden @ head.T, 2 * hidden @ head.T, ids)
    for field, reference in zip(actual, expected, strict=True):
        np.testing.assert_allclose(field, reference, rtol=1e-10)
