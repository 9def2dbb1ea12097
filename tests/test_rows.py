"""Rows taken in blocks give what they give at once, in little memory; users' own estimators are left whole."""

import tracemalloc
from typing import Literal

import numpy as np
import pytest
import strategies
from hypothesis import given
from named import NAMES, make
from running import run
from strategies import examples

import credit
from credit.backends import limits, row_batching
from credit.backends.arrays import apply_mask
from credit.backends.numpy.threads import count_threads

BLOCKWISE = [estimator for estimator in map(make, NAMES) if estimator.runs_in_blocks]
BLOCKWISE += [credit.DGPO(base="opo"), credit.DGPO(base="gdpo")]
BLOCKWISE += [credit.DGPO(tau=0.05, within="turn"), credit.DGPO(effective_fraction=0.5, negative="inverse")]
eager = pytest.mark.parametrize("library", ["numpy", "torch"], indirect=True)


def in_twos(patch):
    """Blocks of two rows, so that some are left over where rows are odd."""
    patch.setattr(limits, "CPU_ROW_BLOCK_ENTRIES", 2 * strategies.T + 1)


@pytest.mark.filterwarnings("ignore:effective_fraction is missed")
@eager
@pytest.mark.parametrize("estimator", BLOCKWISE, ids=lambda estimator: estimator.name)
@examples
@given(batch=strategies.rollouts())
def test_blocks_of_rows_equal_all_rows_at_once(library, estimator, batch):
    batch = strategies.dense(strategies.take(batch, range(7)))
    whole = run(library, estimator, batch)
    with pytest.MonkeyPatch.context() as patch:
        in_twos(patch)
        parts = run(library, estimator, batch)
    # numpy's threads take torch's blocks, and the two round differently.
    close = {"rtol": 1e-5, "atol": 1e-6} if library.name == "torch" else {"rtol": 0}
    np.testing.assert_allclose(parts.advantages, whole.advantages, **close)
    np.testing.assert_allclose(parts.weights, whole.weights, **close)
    assert parts.metrics.keys() == whole.metrics.keys()
    for name, value in whole.metrics.items():
        # An advantage that is 0 but for its rounding may count as positive or not.
        if library.name != "torch" or name != "advantage_positive_fraction":
            # A mean of advantages that cancel is known to the precision of the largest.
            unit = max(1.0, np.abs(whole.advantages).max()) if name.startswith("advantage_") else 1.0
            np.testing.assert_allclose(parts.metrics[name], value, close["rtol"], unit * close.get("atol", 0))


@eager
@examples
@given(batch=strategies.rollouts(invalid=False))
def test_a_subclass_may_look_across_rows(library, batch):
    class Scaled(credit.DGPO):
        """A subclass is not taken in blocks, whose largest deviation would not be that of all rows."""

        name: Literal["scaled_by_largest"] = "scaled_by_largest"

        def score(self, rollouts):
            return rollouts.deviation * rollouts.deviation.max()

    with pytest.MonkeyPatch.context() as patch:
        in_twos(patch)
        found = run(library, Scaled(tau=0.1), batch).weights
    score = np.where(batch.mask, batch.deviation, 0)
    expected = credit.tokens.redistribute(score * score.max(), batch.mask, 0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_torch_tensors_of_any_kind_are_taken_in_blocks(monkeypatch):
    torch = pytest.importorskip("torch")
    field = torch.rand(7, 8, requires_grad=True)
    batch = credit.Rollouts(
        torch.arange(7),
        torch.arange(7) // 4,
        torch.ones(7, 8),
        deviation=field.bfloat16(),
        normalized_entropy=field,
    )
    whole = credit.DGPO()(batch)
    in_twos(monkeypatch)
    parts = credit.DGPO()(batch)
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-6)
    assert not parts.advantages.requires_grad


def test_blocks_warn_no_more_than_all_rows_at_once(monkeypatch):
    """The threads of the blocks see numpy's error state: inf - inf warns, and warnings are errors here."""
    score = np.full((8, 6), np.inf, np.float32)
    batch = credit.Rollouts(np.arange(8.0), np.zeros(8, int), score > 0, deviation=score)
    in_twos(monkeypatch)
    monkeypatch.setattr(row_batching, "count_threads", lambda: 2)
    with np.errstate(all="ignore"):
        assert np.isnan(credit.DGPO(kappa=0)(batch).advantages).all()
    with pytest.raises(RuntimeWarning, match="invalid value"):
        credit.DGPO(kappa=0)(batch)


def test_temporaries_do_not_grow_with_the_batch():
    shape = 1024, 4096
    field = np.random.default_rng(0).random(shape, np.float32)
    batch = credit.Rollouts(
        np.arange(shape[0], dtype=np.float32),
        np.arange(shape[0]) // 8,
        np.ones(shape, bool),
        deviation=field,
        normalized_entropy=field,
    )
    tracemalloc.start()
    credit.DGPO()(batch)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (
        peak < 2 * field.nbytes + count_threads() * 20 * 4 * limits.CPU_ROW_BLOCK_ENTRIES
    )  # the outputs, and blocks


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "int64"])
@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray, lambda a: a[:, ::2]])
def test_what_the_mask_leaves_out_may_be_anything(library, dtype, layout):
    if (library.name, dtype) == ("array_api_strict", "float16"):
        pytest.skip("the standard has no float16")
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 8)) * 100
    if dtype.startswith("float"):
        values[1], values[2], values[:, 4] = np.nan, np.inf, -np.inf
    values, mask = (layout(array) for array in (values.astype(dtype), rng.random((5, 8)) < 0.5))
    given = library.asarray(values), library.asarray(mask)
    values = library.numpy(given[0])  # JAX holds 32 bits
    rest = library.asarray(np.arange(5).astype(values.dtype)[:, None])
    with np.errstate(all="raise"):
        zeros, column = apply_mask(*given), apply_mask(*given, rest)
    np.testing.assert_array_equal(library.numpy(zeros), np.where(mask, values, 0))
    np.testing.assert_array_equal(library.numpy(column), np.where(mask, values, np.arange(5)[:, None]))
    if dtype.startswith("float"):
        lowest = library.numpy(apply_mask(*given, -float("inf")))
        np.testing.assert_array_equal(lowest, np.where(mask, values, -np.inf))


def test_gradients_flow_through_what_the_mask_keeps():
    torch = pytest.importorskip("torch")
    values, mask = torch.ones(2, 3, requires_grad=True), torch.tensor([[1, 0, 1], [0, 1, 0]]) == 1
    apply_mask(values, mask).sum().backward()
    assert torch.equal(values.grad, mask.float())


def test_blocks_run_on_a_device_that_cannot_be_looked_at():
    torch = pytest.importorskip("torch")
    batch = arrays_on_meta(torch, (4, limits.ACCELERATOR_ROW_BLOCK_ENTRIES // 2))
    result = credit.DGPO()(batch)
    assert result.advantages.shape == batch.mask.shape
    assert result.metrics["weight_std"].device.type == "meta"


def arrays_on_meta(torch, shape):
    field, row = torch.zeros(shape, device="meta"), torch.zeros(shape[0], device="meta")
    return credit.Rollouts(row, row.long(), field.bool(), deviation=field, normalized_entropy=field)
