"""The compiled path of a CPU, CREDIT_CPU=compiled: within the bounds of the blocks that it replaces."""

import sys

import logit_cases
import numpy as np
import pytest
import statistics_oracle as oracle
from measuring import assert_within_bounds, token_ids

import credit
from credit.backends import choose_backend, limits
from credit.backends.numpy import backend as numpy_backend
from credit.backends.numpy import compiled

TILE = limits.COMPILED_TILE_ENTRIES


@pytest.fixture(autouse=True)
def chosen(monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setenv("CREDIT_CPU", "compiled")


@pytest.fixture
def rng():
    return np.random.default_rng(2_026)


@pytest.fixture(params=["numpy", "float32", "bfloat16"])
def put(request):
    """Makes an array of numpy, or a tensor of that type."""
    if request.param == "numpy":
        return lambda array: array
    torch = pytest.importorskip("torch")
    kind = getattr(torch, request.param)
    return lambda array: torch.from_numpy(array).to(kind if array.dtype == np.float32 else torch.int64)


def widen(array):
    """The values that an array holds, as float32 or integers."""
    return (
        array
        if isinstance(array, np.ndarray)
        else (array.float() if array.is_floating_point() else array).numpy()
    )


def measure(put, x, y, ids, **settings):
    """The statistics, and what they are of."""
    given = [put(np.array(array)) for array in (x, y, ids)]
    assert choose_backend(given[0]).describe_path(given[0]) == "compiled rows"
    return [widen(field) for field in credit.token_statistics(*given, **settings)], [widen(a) for a in given]


@pytest.mark.parametrize("case", logit_cases.CASES)
def test_every_case_is_within_bounds(put, rng, case):
    x, y = logit_cases.CASES[case](rng)
    actual, given = measure(put, x, y, token_ids(rng, x))
    assert_within_bounds(actual, *given)


@pytest.mark.parametrize("size", [1, 2, TILE - 1, TILE + 1, 2 * TILE + 5])
@pytest.mark.parametrize("shape", [(), (2, 3), (2, 0, 3)])
def test_sizes_of_tiles_and_leading_shapes(put, rng, size, shape):
    x, y = (
        array.reshape(*shape, size)
        for array in logit_cases.ordinary(rng, rows=int(np.prod(shape)), size=size)
    )
    actual, given = measure(put, x, y, token_ids(rng, x), temperature=0.7)
    assert_within_bounds(actual, *given, 0.7)


@pytest.mark.parametrize("noise", [1e-4, 1e-2])
def test_deviation_of_near_models_is_relatively_accurate(rng, noise):
    x, y = logit_cases.near(rng, noise)
    ids = token_ids(rng, x)
    assert_within_bounds(credit.token_statistics(x, y, ids), x, y, ids)


@pytest.mark.parametrize("case", ["ordinary", "masked_policy", "finite_heads", "large", "one_hots"])
def test_identical_models_deviate_by_exactly_zero(put, rng, case):
    x, _ = logit_cases.CASES[case](rng)
    (log_probs, reference, _, deviation), _ = measure(put, x, x.copy(), token_ids(rng, x))
    np.testing.assert_array_equal(deviation, 0.0)
    np.testing.assert_array_equal(log_probs, reference)


def test_temperature_of_every_token(put, rng):
    x, y = logit_cases.masked_differently(rng)
    temperature = np.geomspace(0.05, 10, 6).astype(np.float32)
    given = [put(array) for array in (x, y, token_ids(rng, x))]
    own = (
        temperature
        if isinstance(given[0], np.ndarray)
        else credit.backends.arrays.namespace(given[0]).asarray(temperature)
    )
    actual = [widen(field) for field in credit.token_statistics(*given, temperature=own)]
    assert_within_bounds(actual, *map(widen, given), temperature)


def test_poisoned_tokens_hurt_only_themselves_and_their_model(put, rng):
    x, y = logit_cases.ordinary(rng, rows=8)
    x[1, 7], x[2, 20_000], x[3] = np.nan, np.inf, -np.inf
    y[4, 20_000], y[5, 7], y[6] = -np.nan, np.inf, -np.inf
    actual, given = measure(put, x, y, rng.integers(x.shape[-1], size=8))
    policy, reference = np.isin(np.arange(8), (1, 2, 3)), np.isin(np.arange(8), (4, 5, 6))
    for field, bad in zip(actual, (policy, reference, policy, policy | reference), strict=True):
        np.testing.assert_array_equal(np.isnan(field), bad)
    assert_within_bounds(actual, *given)


def test_masked_tokens_are_zero_and_their_logits_unread(put, rng):
    x, y = logit_cases.ordinary(rng)
    ids, mask = token_ids(rng, x), np.asarray([True, False, True, False, False, True])
    x[1], y[3], x[4, 5] = np.nan, -np.inf, np.inf
    given = [put(array) for array in (x, y, np.where(mask, ids, -100))]
    own = mask if isinstance(given[0], np.ndarray) else given[2] >= 0
    actual = [widen(field) for field in credit.token_statistics(*given, mask=own)]
    for field in actual:
        np.testing.assert_array_equal(field[~mask], 0.0)
    assert_within_bounds([field[mask] for field in actual], *(widen(a)[mask] for a in given))


def test_rows_are_read_where_they_lie(put, rng):
    """Strided, spread over columns, shared by all tokens, and, on numpy, backwards."""
    x, y = (put(array.reshape(2, 3, 4, 1300)) for array in logit_cases.ordinary(rng, rows=24, size=1300))
    views = [x[:, :-1, 1:], x[..., ::2], x[:1, :1, :1]]
    if isinstance(x, np.ndarray):
        views.append(x[::-1, :, ::-1, ::-1])
    for view in views:
        other = y[tuple(slice(length) for length in view.shape)]
        shape = (2, 2, 3) if view.shape[0] == 1 else tuple(view.shape[:-1])
        if view.shape[0] == 1:
            broadcast = np.broadcast_to if isinstance(x, np.ndarray) else lambda a, s: a.expand(s)
            view, other = (broadcast(a, (*shape, 1300)) for a in (view, other))
        ids = rng.integers(view.shape[-1], size=shape)
        actual = [widen(field) for field in credit.token_statistics(view, other, put(ids))]
        assert_within_bounds(actual, widen(view), widen(other), ids)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [1, TILE - 1, 2 * TILE + 5])
@pytest.mark.parametrize("of_entropy", [0.0, 0.5])
def test_gradients(rng, kind, size, of_entropy):
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(logit_cases.ordinary(rng, rows=6, size=size)[0]).to(getattr(torch, kind))
    ids = rng.integers(size, size=6)
    x[1, : size // 3], ids[1] = -torch.inf, size - 1
    leaf = x.reshape(2, 3, size).requires_grad_()
    log_probs, entropy = credit.log_probs_and_entropy(
        leaf, torch.from_numpy(ids).reshape(2, 3), temperature=0.8
    )
    (gradient,) = torch.autograd.grad((log_probs + of_entropy * entropy).sum(), leaf)
    expected = oracle.gradients(x.double().numpy(), ids, 0.8)
    close = {"rtol": 1e-2, "atol": 1e-5} if kind == "bfloat16" else {"rtol": 3e-5, "atol": 2e-6}
    whole = expected[0] + of_entropy * expected[1]
    np.testing.assert_allclose(gradient.double().numpy().reshape(6, size), whole, **close)


def test_threads_change_nothing(rng, monkeypatch):
    x, y = logit_cases.ordinary(rng, rows=130, size=9001)
    ids, found = rng.integers(9001, size=130), []
    for threads in (1, 7):
        monkeypatch.setattr(numpy_backend, "count_threads", lambda count=threads: count)
        found.append(numpy_backend.token_statistics(x, y, ids, 1.0))
    np.testing.assert_array_equal(*found)


def test_from_hidden_states(rng):
    hidden, head = rng.normal(size=(5, 8)).astype("f4"), rng.normal(size=(5_000, 8)).astype("f4")
    ids = rng.integers(5_000, size=5)
    actual = credit.token_statistics_from_hidden(hidden, head, hidden, head + np.float32(0.1), ids)
    assert_within_bounds(actual, hidden @ head.T, hidden @ (head.T + np.float32(0.1)), ids)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # torch's own
def test_inside_torch_compile(rng):
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(logit_cases.ordinary(rng, size=3_000)[0])
    ids = torch.arange(6)

    def loss(logits):
        log_probs, entropy = credit.log_probs_and_entropy(logits, ids)
        return (log_probs - 0.1 * entropy).sum()

    compiled_loss = torch.compile(loss, backend="aot_eager", fullgraph=True)
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    for function, leaf in zip((loss, compiled_loss), leaves, strict=True):
        function(leaf).backward()
    assert torch.equal(leaves[0].grad, leaves[1].grad)


def test_what_keeps_to_the_blocks(rng):
    """Types that the kernels lack, and statistics by name; both say or document it."""
    x, y = logit_cases.ordinary(rng)
    ids = token_ids(rng, x)
    path = choose_backend(x).describe_path
    assert path(x, ("entropy",)) == "compiled rows"  # one of the four
    assert path(x.astype(float)) == path(x, ("kl",)) == "numpy blocks"
    assert_within_bounds(credit.token_statistics(x.astype(float), y.astype(float), ids), x, y, ids)
    four, further = credit.token_statistics(x, y, ids, also=("kl",))
    assert_within_bounds(four, x, y, ids)
    assert further["kl"].shape == ids.shape


def test_a_choice_that_there_is_not_is_refused(monkeypatch):
    monkeypatch.setenv("CREDIT_CPU", "fast")
    with pytest.raises(ValueError, match="CREDIT_CPU is 'fast'; it may be 'numpy' .* or 'compiled'"):
        credit.selected_log_probs(np.zeros((2, 3), np.float32), np.asarray([0, 1]))


def test_without_a_place_for_what_is_compiled_the_error_says_how_to_name_one(monkeypatch):
    """numba finds none where neither the package's folder nor the user's can be written to."""
    monkeypatch.delitem(sys.modules, "credit.backends.numpy.compiled_kernels", raising=False)
    monkeypatch.delattr("credit.backends.numpy.compiled_kernels", raising=False)
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    with pytest.raises(RuntimeError, match="CREDIT_CPU=compiled .* set NUMBA_CACHE_DIR to a folder"):
        compiled.import_kernels()


def test_without_numba_the_error_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "credit.backends.numpy.compiled_kernels", raising=False)
    monkeypatch.delattr("credit.backends.numpy.compiled_kernels", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(ImportError, match=r"CREDIT_CPU=compiled needs numba.*token-credit\[compiled\]"):
        compiled.import_kernels()
