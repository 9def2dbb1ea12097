"""Arrays of the user's own in `Rollouts.extra`: an estimator reads them as it reads the fields."""

import warnings
from typing import ClassVar, Literal

import numpy as np
import pytest
from running import arrays, run
from strategies import N, T

import credit
from credit.backends import limits
from credit.fields import list_arrays, replace_arrays

pytestmark = pytest.mark.usefixtures("own_registry")
rng = np.random.default_rng(0)
MASK = np.arange(T) < rng.integers(1, T + 1, (N, 1))
RIGHT = credit.Rollouts(
    rng.normal(size=N).astype(np.float32),
    np.arange(N) // 4,
    MASK,
    extra={
        "own": np.where(MASK, rng.random((N, T)), np.nan),  # in float64, unlike the result
        "steps": np.where(MASK, rng.integers(0, 3, (N, T)), -1).astype(np.int16),
        "flags": rng.random((N, T)) < 0.5,
        "difficulty": rng.random(N).astype(np.float32),
        "features": rng.normal(size=(N, 2)),
        "labels": np.zeros((N, 2), bool),
    },
)


@pytest.fixture
def own():
    """An estimator that keeps what it was given and reads two arrays of the user's own."""

    class Own(credit.Redistributing):
        name: Literal["own_score"] = "own_score"
        seen: ClassVar[list] = []

        @property
        def needs(self):
            return ("extra.own", "extra.difficulty")

        def score(self, given):
            self.seen.append(given)
            return given.extra["own"] * given.extra["difficulty"][:, None]

    return Own(tau=0.5)


def test_an_estimator_reads_what_it_needs(library, own):
    extra = RIGHT.extra
    score = np.where(MASK, extra["own"] * extra["difficulty"][:, None].astype(float), 0.0)
    expected = credit.DGPO(kappa=0, tau=0.5)(RIGHT._replace(deviation=score))
    actual = run(library, own, RIGHT)
    np.testing.assert_allclose(actual.advantages, expected.advantages, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(actual.weights, expected.weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings", [{"tau": 0.5}, {"tau": 0.5, "negative": "inverse"}, {"effective_fraction": 0.6}]
)
@pytest.mark.parametrize("array", ["steps", "flags"])
def test_a_score_may_be_of_integers_or_bool(library, own, array, settings):
    class Counted(type(own)):
        name: Literal["counted"] = "counted"

        @property
        def needs(self):
            return (f"extra.{array}",)

        def score(self, given):
            return given.extra[array]

    floats = np.where(MASK, RIGHT.extra[array], 0).astype(np.float32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "effective_fraction is missed")
        expected = credit.DGPO(kappa=0, **settings)(RIGHT._replace(deviation=floats)).weights
        np.testing.assert_allclose(
            run(library, Counted(**settings), RIGHT).weights, expected, rtol=1e-5, atol=1e-6
        )


def test_it_sees_them_as_it_sees_the_fields(library, own):
    """In the result's float type or as indices, and 0 outside the mask."""

    def look(rollouts):
        own(rollouts)
        return dict(own.seen[-1].extra)

    found = library.quick(look)(arrays(library, RIGHT))
    seen = {name: library.numpy(array) for name, array in found.items()}
    assert seen.keys() == RIGHT.extra.keys()
    for name, array in seen.items():
        given = RIGHT.extra[name]
        kept = np.where(MASK, given, np.zeros_like(given)) if given.shape == (N, T) else given
        np.testing.assert_allclose(array, kept, rtol=1e-3)
    floats = ("own", "difficulty", "features")
    kinds = dict.fromkeys(floats, "f") | {"steps": "i", "flags": "b", "labels": "b"}
    assert {name: array.dtype.kind for name, array in seen.items()} == kinds
    assert {seen[name].dtype.itemsize for name in floats} == {4}


@pytest.mark.parametrize("missing", ["own", "difficulty"])
def test_what_is_not_given_is_named(library, own, missing):
    without = replace_arrays(RIGHT, {f"extra.{missing}": None})
    for given in (without, RIGHT._replace(extra={missing: None}), RIGHT._replace(extra=None)):
        with pytest.raises(ValueError, match=rf"own_score needs .*; .*extra\.{missing}.* of the rollouts"):
            own(arrays(library, given))


def test_a_need_that_is_no_field_says_where_it_goes(own):
    class Wrong(type(own)):
        name: Literal["wrong_needs"] = "wrong_needs"

        @property
        def needs(self):
            return ("own",)

    with pytest.raises(ValueError, match="'own', which is no field of Rollouts; .* as 'extra.own'"):
        Wrong()(RIGHT)


def test_statistics_that_are_missing_are_computed_by_name():
    class Exact(credit.Redistributing):
        name: Literal["exact_kl"] = "exact_kl"

        @property
        def needs(self):
            return ("deviation", "extra.kl", "extra.sum_squares")

    with pytest.raises(ValueError, match=r"token_statistics with also=\('kl', 'sum_squares'\) computes them"):
        Exact()(RIGHT)


def test_extra_must_be_a_mapping_by_strings():
    for function in (credit.GRPO(), credit.validate):
        with pytest.raises(ValueError, match="extra is a list; expected a mapping of arrays by name"):
            function(RIGHT._replace(extra=[np.zeros(N)]))
        with pytest.raises(ValueError, match="an array in extra is named 3; expected names that are strings"):
            function(RIGHT._replace(extra={3: np.zeros(N)}))


def test_values_outside_the_mask_do_not_matter(own):
    other = np.where(MASK, RIGHT.extra["own"], -1e30)
    given = replace_arrays(RIGHT, {"extra.own": other})
    np.testing.assert_array_equal(own(given).advantages, own(RIGHT).advantages)


@pytest.mark.parametrize("as_torch", [False, True])
def test_rows_in_blocks_take_their_part(own, as_torch, monkeypatch):
    class InBlocks(type(own)):
        name: Literal["own_in_blocks"] = "own_in_blocks"
        blockwise: ClassVar[bool] = True

        def advantages(self, given):
            assert set(given.extra) == {"difficulty", "features", "labels"}
            return super().advantages(given)

    whole = own(RIGHT)
    monkeypatch.setattr(limits, "CPU_ROW_BLOCK_ENTRIES", 2 * T)
    given = RIGHT
    if as_torch:
        torch = pytest.importorskip("torch")
        given = replace_arrays(given, {n: torch.from_numpy(a) for n, a in list_arrays(given).items()})
    parted = InBlocks(tau=0.5)(given)
    assert {len(given.mask) for given in InBlocks.seen} == {2, N}
    np.testing.assert_allclose(np.asarray(parted.weights), whole.weights, rtol=1e-6)
