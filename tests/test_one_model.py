"""A policy without a reference: its statistics are those beside a reference, and its head is multiplied once."""

import logit_cases
import numpy as np
import pytest
from measuring import token_ids

import credit

ALSO = ("entropy", "sum_squares")


@pytest.fixture
def rng():
    return np.random.default_rng(31)


def call(library, function, arrays, **settings):
    """The four and the others as numpy arrays, jitted on JAX; None stays None."""
    given = [None if array is None else library.asarray(array) for array in arrays]
    places = [k for k, array in enumerate(given) if array is not None]

    def run(*arrays):
        every = list(given)
        for place, array in zip(places, arrays, strict=True):
            every[place] = array
        return function(*every, **settings, also=ALSO)

    four, more = library.call(run)(*(given[place] for place in places))
    fields = [None if field is None else library.numpy(field) for field in four]
    return fields, {name: library.numpy(more[name]) for name in ALSO}


def assert_alone(actual, beside):
    """What compares is not there, and the rest as beside a reference, up to the order of sums."""
    (log_p, log_q, entropy, deviation), more = actual
    assert log_q is None
    assert deviation is None
    np.testing.assert_allclose(log_p, beside[0][0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(entropy, beside[0][2], rtol=1e-6, atol=1e-6)
    for name in ALSO:
        np.testing.assert_allclose(more[name], beside[1][name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["finite_heads", "masked_differently"])
def test_given_logits(library, rng, case):
    x, y = (logits[:40] for logits in logit_cases.CASES[case](rng))
    ids = token_ids(rng, x)
    alone = call(library, credit.token_statistics, (x, None, ids), temperature=0.7)
    assert_alone(alone, call(library, credit.token_statistics, (x, y, ids), temperature=0.7))


def test_hidden_states(library, rng):
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in ((2, 3, 16), (1_003, 16)) * 2]
    ids, settings = (
        rng.integers(1_003, size=(2, 3)).astype(np.int32),
        {"scale": 0.5, "soft_cap": 3.0, "chunk": 300},
    )
    alone = call(library, credit.token_statistics_from_hidden, (*arrays[:2], None, None, ids), **settings)
    assert_alone(alone, call(library, credit.token_statistics_from_hidden, (*arrays, ids), **settings))


def test_bad_rows_masks_padding_and_shapes(library):
    x = np.zeros((5, 4), np.float32)
    x[0, 1], x[1, 0], x[2], x[:, 3] = np.nan, np.inf, -np.inf, 50.0
    ids, mask = np.asarray([0, 1, 2, 0, 900], np.int32), np.asarray([1, 1, 1, 1, 0])
    settings = {"vocab_size": 3, "mask": library.asarray(mask)}
    (log_p, _, entropy, _), more = call(library, credit.token_statistics, (x, None, ids), **settings)
    for field in (log_p, entropy, *more.values()):
        np.testing.assert_array_equal(np.isnan(field), [True, True, True, False, False])
    np.testing.assert_allclose(log_p[3:], [-np.log(3.0), 0.0], rtol=1e-6)
    np.testing.assert_allclose(more["sum_squares"][3:], [1 / 3, 0.0], rtol=1e-6)


def test_the_head_is_multiplied_once(rng):
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    hidden, head = torch.randn(6, 8), torch.randn(1_000, 8)
    ids = torch.zeros(6, dtype=torch.int64)
    counted = []
    for reference in ((hidden, head), (None, None)):
        with FlopCounterMode(display=False) as counter:
            credit.token_statistics_from_hidden(hidden, head, *reference, ids, chunk=300)
        counted.append(counter.get_total_flops())
    assert counted == [2 * 2 * 6 * 8 * 1_000, 2 * 6 * 8 * 1_000]


@pytest.mark.parametrize("name", ["kl", "reverse_kl"])
def test_divergences_need_a_reference(name):
    with pytest.raises(
        ValueError, match=f"also asks for '{name}', which needs a reference, and there is none"
    ):
        credit.token_statistics(np.zeros((1, 3)), None, np.asarray([0]), also=("entropy", name))


@pytest.mark.parametrize("given", [(np.zeros((1, 2)), None, None), (None, None, np.zeros(3))])
def test_a_part_of_a_reference_is_refused(given):
    hidden, head, bias = given
    arrays = np.zeros((1, 2)), np.zeros((3, 2)), hidden, head, np.asarray([0])
    with pytest.raises(ValueError, match="reference_hidden and reference_head are both given or"):
        credit.token_statistics_from_hidden(*arrays, reference_bias=bias)


def test_estimators_get_what_they_need_and_say_what_is_missing(rng):
    x, ids = rng.normal(size=(4, 5, 50)), rng.integers(50, size=(4, 5))
    batch = rng.random(4), np.asarray([0, 0, 1, 1]), np.ones((4, 5), bool)
    rollouts = credit.Rollouts(*batch, **credit.token_statistics(x, None, ids)._asdict())
    credit.validate(rollouts)
    assert np.isfinite(credit.get("entropy_shaped")(rollouts).advantages).all()
    with pytest.raises(ValueError, match="deviation"):
        credit.get("dgpo")(rollouts)
