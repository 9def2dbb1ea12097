"""The statistics that are asked for by name, `also=`, against float64 and within the documented bounds."""

from itertools import product

import logit_cases
import numpy as np
import pytest
import statistics_oracle as oracle
from measuring import token_ids
from running import on_numpy, quick_jit

import credit

ALSO = ("sum_squares", "kl", "reverse_kl", "entropy")
EVERYWHERE = ("three_entries", "no_tokens", "masked_differently", "finite_heads", "offsets")


@pytest.fixture
def rng():
    return np.random.default_rng(20_261)


def ask(library, arrays, also=ALSO, function=credit.token_statistics, **settings):
    """The four statistics, and those asked for, as numpy arrays; jitted on JAX."""
    named = {key: library.asarray(value) for key, value in settings.items() if isinstance(value, np.ndarray)}

    def call(arrays, named):
        return function(*arrays, **(settings | named), also=also)

    four, more = library.call(call)([library.asarray(array) for array in arrays], named)
    return [library.numpy(field) for field in four], {name: library.numpy(more[name]) for name in more}


def assert_within_bounds(more, x, y, temperature=1.0):
    used = oracle.further_errors(more, oracle.further(x, y, temperature))
    assert max(used.values()) <= 1.0, used


@on_numpy("case", list(logit_cases.CASES), everywhere=EVERYWHERE)
def test_every_case_is_within_bounds(library, rng, case):
    x, y = logit_cases.CASES[case](rng)
    ids = token_ids(rng, x)
    four, more = ask(library, (x, y, ids))
    assert set(more) == set(ALSO)
    assert all(field.dtype == np.float32 and field.shape == ids.shape for field in more.values())
    assert_within_bounds(more, x, y)
    used = oracle.errors(four, oracle.statistics(x, y, ids), x.shape[-1])
    assert max(used.values()) <= 1.0, used


@on_numpy("noise", [1e-5, 1e-4, 1e-3, 1e-2], everywhere=[1e-3])
def test_divergence_of_near_models_is_relatively_accurate(library, rng, noise):
    """At 1e-3 it is 5e-7, where a difference of two log-sum-exps in float32 has no digit right."""
    x, y = logit_cases.near(rng, noise)
    _, more = ask(library, (x, y, token_ids(rng, x)))
    assert_within_bounds(more, x, y)
    assert more["kl"].max() < noise**2


@on_numpy("delta", [0.1, 1.0], everywhere=[0.1])
def test_flat_row_whose_top_token_moves(library, rng, delta):
    x, y = logit_cases.moved_top(rng, delta, 100_000)
    assert_within_bounds(ask(library, (x, y, token_ids(rng, x)))[1], x, y)


@on_numpy(
    "case", ["ordinary", "masked_policy", "finite_heads", "large", "one_hots"], everywhere=["masked_policy"]
)
def test_identical_models_diverge_by_exactly_zero(library, rng, case):
    x, _ = logit_cases.CASES[case](rng)
    _, more = ask(library, (x, x.copy(), token_ids(rng, x)), ("reverse_kl", "kl"))
    np.testing.assert_array_equal(more["kl"], 0.0)
    np.testing.assert_array_equal(more["reverse_kl"], 0.0)


def test_supports_that_differ(library):
    """Infinite where one model alone has mass; a probability that underflows is none, and 0 ln 0 is 0."""
    inf = np.inf
    x = np.asarray([[0, 0, -inf], [0, -inf, -inf], [0, 0, -inf], [0, -1e9, -inf], [0, 0, -1e9]], np.float32)
    y = np.asarray([[0, -inf, 0], [0, 0, -inf], [0, 0, 0], [0, -inf, -inf], [0, 0, -inf]], np.float32)
    _, more = ask(library, (x, y, np.zeros(5, np.int32)))
    ln2 = np.log(2.0)
    np.testing.assert_allclose(more["kl"], [inf, ln2, np.log(1.5), 0.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(more["reverse_kl"], [inf, inf, inf, 0.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(more["sum_squares"], [0.5, 1.0, 0.5, 1.0, 0.5], rtol=1e-6)
    np.testing.assert_allclose(more["entropy"], [ln2, 0.0, ln2, 0.0, ln2], rtol=1e-6)


def test_a_ratio_that_leaves_float32(library):
    """q is 1/2 where p is e^-95, which float32 holds with few digits, or not at all: e^95 p is 1/2."""
    x, y = np.asarray([[0, -95], [0, -80]], np.float32), np.zeros((2, 2), np.float32)
    _, more = ask(library, (x, y, np.zeros(2, np.int32)), ("kl",))
    np.testing.assert_allclose(more["kl"], np.log(2.0), rtol=1e-6)


TEMPERATURES = list(product(("offsets", "masked_reference"), (0.05, 10.0, "array")))


@on_numpy("setting", TEMPERATURES, everywhere=[("masked_reference", "array")])
def test_temperature(library, rng, setting):
    case, temperature = setting
    x, y = logit_cases.CASES[case](rng)
    if temperature == "array":
        temperature = np.geomspace(0.1, 10.0, len(x)).astype(np.float32)
    _, more = ask(library, (x, y, token_ids(rng, x)), temperature=temperature)
    assert_within_bounds(more, x, y, temperature)


def test_bad_rows_masks_padding_and_shapes(library, rng):
    """NaN for a bad row's own models, 0 where masked, whatever stands there, and padding is not read."""
    x, y = logit_cases.ordinary(rng, rows=8, size=1_200)
    ids = token_ids(rng, x)
    x[1, 7], x[2, 1_100], x[3], y[4, 1_100], y[5, 7], y[6] = np.nan, np.inf, -np.inf, np.nan, np.inf, -np.inf
    mask = np.asarray([1, 1, 1, 0, 1, 1, 1, 0], bool)
    ids[~mask] = -100
    padded = [np.concatenate([side, np.full((8, 80), np.nan, np.float32)], -1) for side in (x, y)]
    arrays = [array.reshape(2, 4, -1) for array in padded] + [ids.reshape(2, 4)]
    four, more = ask(library, arrays, vocab_size=1_200, mask=mask.reshape(2, 4))
    policy, either = np.isin(np.arange(8), (1, 2)), np.isin(np.arange(8), (1, 2, 4, 5, 6))
    expected = oracle.further(x, y)
    for name, bad in zip(ALSO, (policy, either, either, policy), strict=True):
        field = more[name].reshape(-1)
        np.testing.assert_array_equal(np.isnan(field), bad)
        np.testing.assert_array_equal(field[~mask], 0.0)
        np.testing.assert_allclose(field[mask], expected[name][mask], rtol=1e-5)
    plain = library.call(lambda *a: credit.token_statistics(*a[:3], vocab_size=1_200, mask=a[3]))
    given = [library.asarray(array) for array in (*arrays, mask.reshape(2, 4))]
    for field, alone in zip(four, plain(*given), strict=True):
        np.testing.assert_allclose(field, library.numpy(alone), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_the_four_do_not_change_by_a_bit_and_each_name_can_be_alone(rng, name):
    asarray = np.asarray if name == "numpy" else pytest.importorskip("torch").from_numpy
    x, y = logit_cases.masked_differently(rng)
    arrays = [asarray(array) for array in (x, y, token_ids(rng, x))]
    alone = credit.token_statistics(*arrays)
    four, more = credit.token_statistics(*arrays, also=ALSO)
    for also in ((), *((name,) for name in ALSO), ALSO[::-1]):
        found = credit.token_statistics(*arrays, also=also)
        found, some = found if also else (found, {})
        assert type(found) is credit.TokenStatistics
        assert tuple(some) == also
        for field, other in zip((*found, *some.values()), (*alone, *(more[n] for n in also)), strict=True):
            np.testing.assert_array_equal(field, other)
    np.testing.assert_array_equal(np.stack(four), np.stack(alone))


def test_from_hidden_states(library, rng):
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in ((2, 3, 16), (1_003, 16)) * 2]
    x, y = (oracle.head_logits(*side, scale=0.5, soft_cap=3.0) for side in (arrays[:2], arrays[2:]))
    ids = rng.integers(1_003, size=(2, 3)).astype(np.int32)
    settings = {"scale": 0.5, "soft_cap": 3.0, "chunk": 300, "temperature": 0.7}
    _, more = ask(library, (*arrays, ids), ALSO[1:], credit.token_statistics_from_hidden, **settings)
    assert set(more) == set(ALSO[1:])
    used = oracle.further_errors(more, oracle.further(x, y, 0.7))
    assert max(used.values()) <= 2.0, used  # the products of the head are rounded themselves


@pytest.mark.parametrize(
    "also", ["kl", ("kl", "kl"), ("KL",), ("kl", "deviation"), ["logits"], None, (["kl"],)]
)
def test_names_that_are_unknown_or_repeated_are_refused(also):
    x, ids = np.zeros((2, 3)), np.zeros(2, int)
    for call in (
        lambda: credit.token_statistics(x, x, ids, also=also),
        lambda: credit.token_statistics_from_hidden(x, x[:, :3], x, x[:, :3], ids, also=also),
    ):
        with pytest.raises(ValueError, match=r"also is .*; expected a tuple of different names among sum_sq"):
            call()


def test_a_list_is_answered_by_a_pair_though_it_be_empty():
    x, ids = np.zeros((2, 3)), np.zeros(2, int)
    four, more = credit.token_statistics(x, x, ids, also=[])
    assert type(four) is credit.TokenStatistics
    assert more == {}


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float64"])
def test_other_types_of_torch(rng, kind):
    torch = pytest.importorskip("torch")
    x, y = (torch.from_numpy(a).to(getattr(torch, kind)) for a in logit_cases.masked_reference(rng))
    ids = torch.zeros(len(x), dtype=torch.int64)
    four, more = credit.token_statistics(x.requires_grad_(), y, ids, also=ALSO)
    assert {field.dtype for field in more.values()} == {four.log_probs.dtype}
    assert not any(field.requires_grad for field in more.values())
    wide = x.detach().double().numpy(), y.double().numpy()
    more = {name: field.numpy() for name, field in more.items()}
    assert_within_bounds(more, *wide)
    if kind == "float64":
        np.testing.assert_allclose(more["reverse_kl"], oracle.further(*wide)["reverse_kl"], rtol=1e-12)


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_transforms_of_torch(rng):
    torch = pytest.importorskip("torch")
    x, y = (torch.from_numpy(a) for a in logit_cases.ordinary(rng, size=700))
    ids = torch.zeros(len(x), dtype=torch.int64)

    def call(x, y, ids):
        return credit.token_statistics(x, y, ids, also=ALSO)

    plain = call(x, y, ids)
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(call, fullgraph=True, backend="eager")(x, y, ids), plain)
    torch.testing.assert_close(torch.vmap(call)(x, y, ids), plain)
    on_meta = call(x.to("meta"), y.to("meta"), ids.to("meta"))
    assert {(field.shape, field.is_meta) for field in on_meta[1].values()} == {(ids.shape, True)}


def test_no_gradient_of_jax():
    jax = pytest.importorskip("jax")
    x, ids = jax.numpy.asarray([[0.0, 1.0, 2.0]]), jax.numpy.zeros(1, "int32")

    def total(x):
        _, more = credit.token_statistics(x, x[:, ::-1], ids, also=ALSO)
        return sum(field.sum() for field in more.values())

    np.testing.assert_array_equal(quick_jit(jax.grad(total))(x), 0.0)
