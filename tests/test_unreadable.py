"""Arrays that cannot be read as plain numbers are refused in every place by one message that lists what can."""

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from running import run
from strategies import examples

import credit
from credit import GRPO, PolicyLoss, Rollouts, validate
from credit.fields import list_arrays, replace_arrays
from credit.selftest.estimators import draw_field
from credit.types import FIELDS

N, T, V = 4, 3, 9
RNG = np.random.default_rng(0)
ONE_MESSAGE = (
    "expected an array of numpy, torch, JAX or array_api_strict that is dense, whole and without a mask"
)


class Lazy:
    """An array of another library, which follows the standard as far as anyone can see before computing."""

    __module__ = "somelib.array"

    def __init__(self, array):
        self.dtype, self.shape, self.ndim = array.dtype, array.shape, array.ndim

    def __array_namespace__(self, api_version=None):
        return np

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("it is computed before it is refused")


def by_torch(make):
    def convert(array):
        torch = pytest.importorskip("torch")
        return make(torch, torch.from_numpy(np.array(array)))

    return convert


def by_jax(make):
    def convert(array):
        jax = pytest.importorskip("jax")
        return make(jax, jax.numpy.asarray(array))

    return convert


def quantize(torch, tensor):
    return torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.quint8)


def as_class(name):
    """A stand-in for a subclass that torch has; the real one needs a process group or warns."""
    return by_torch(lambda torch, tensor: tensor.as_subclass(type(name, (torch.Tensor,), {})))


KINDS = {
    "masked": (lambda array: np.ma.masked_array(array, mask=np.ones(array.shape, bool)), "numpy MaskedArray"),
    "objects": (lambda array: array.astype(object), "object"),
    "text": (lambda array: array.astype(str), "str|<U"),
    "numpy complex": (lambda array: array.astype(complex), "complex128"),
    "another library": (Lazy, "somelib Lazy"),
    "torch complex": (by_torch(lambda torch, tensor: tensor.to(torch.complex64)), "complex64"),
    "torch float8": (by_torch(lambda torch, tensor: tensor.to(torch.float8_e4m3fn)), "float8_e4m3fn"),
    "sparse": (by_torch(lambda _, tensor: tensor.to_sparse()), "layout torch.sparse_coo"),
    "quantized": (by_torch(quantize), "quantized"),
    "DTensor": (as_class("DTensor"), "torch DTensor"),
    "MaskedTensor": (as_class("MaskedTensor"), "torch MaskedTensor"),
    "jax float8": (by_jax(lambda jax, array: array.astype(jax.numpy.float8_e4m3fn)), "float8_e4m3fn"),
}

ROLLOUTS = Rollouts(
    np.array([1, 0, 1, 0], np.float32),
    np.array([0, 0, 3, 3]),
    np.ones((N, T), bool),
    valid=np.ones(N, bool),
    extra={"own": np.ones((N, T), np.float32)},
    **{
        name: draw_field(rule, RNG, N, T)
        for name, rule in FIELDS.items()
        if name not in ("rewards", "groups", "mask", "valid")
    },
)
LOGITS = {
    "policy_logits": RNG.normal(size=(N, T, V)).astype(np.float32),
    "reference_logits": RNG.normal(size=(N, T, V)).astype(np.float32),
    "token_ids": RNG.integers(V, size=(N, T)),
    "temperature": np.ones((N, T), np.float32),
    "mask": np.ones((N, T), bool),
}
HIDDEN = {
    "policy_hidden": RNG.normal(size=(N, T, 2)).astype(np.float32),
    "policy_head": RNG.normal(size=(V, 2)).astype(np.float32),
    "reference_hidden": RNG.normal(size=(N, T, 2)).astype(np.float32),
    "reference_head": RNG.normal(size=(V, 2)).astype(np.float32),
    "token_ids": LOGITS["token_ids"],
    "policy_bias": np.zeros(V, np.float32),
    "reference_bias": np.zeros(V, np.float32),
}
LOSS = {
    name: -RNG.random((N, T)).astype(np.float32)
    for name in ("log_probs", "old_log_probs", "advantages", "reference_log_probs", "rollout_log_probs")
}
CALLS = {
    "estimator": (lambda **arrays: GRPO()(replace_arrays(ROLLOUTS, arrays)), list_arrays(ROLLOUTS)),
    "keep": (lambda **arrays: credit.DAPO().keep(replace_arrays(ROLLOUTS, arrays)), list_arrays(ROLLOUTS)),
    "validate": (lambda **arrays: validate(replace_arrays(ROLLOUTS, arrays)), list_arrays(ROLLOUTS)),
    "factors": (lambda advantages: GRPO().factors(ROLLOUTS, advantages), {"advantages": ROLLOUTS.rewards}),
    "statistics": (credit.token_statistics, LOGITS),
    "hidden": (credit.token_statistics_from_hidden, HIDDEN),
    "log_probs": (
        credit.selected_log_probs,
        {"logits": LOGITS["policy_logits"], "token_ids": LOGITS["token_ids"]},
    ),
    "top_k": (credit.top_k_deviation, {n: LOSS[n] for n in ("log_probs", "reference_log_probs")}),
    "loss": (PolicyLoss(kl_coefficient=0.1), LOSS | {"mask": LOGITS["mask"]}),
    "overlong": (lambda lengths: credit.overlong_penalty(lengths, 9, 3), {"lengths": np.arange(N)}),
}
PLACES = [(call, name) for call, (_, arguments) in CALLS.items() for name in arguments]


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")  # deprecated, and there are such tensors
@pytest.mark.parametrize("kind", KINDS)
def test_is_refused_in_every_place(kind):
    make, named = KINDS[kind]
    for call, name in PLACES:
        function, arguments = CALLS[call]
        wrong = make(arguments[name])
        # Of groups that are no integers, another message says how to make them of ids of any kind.
        expected = rf"^{name} (is .*({named}).*; {ONE_MESSAGE}|are .*; expected integers in 0\.\.N-1)"
        with pytest.raises(ValueError, match=expected):
            function(**arguments | {name: wrong})


@examples
@drawn(
    seed=st.integers(0, 2**32 - 1),
    swapped=st.booleans(),
    wide=st.sampled_from(("uint16", "uint32", "uint64")),
)
def test_what_only_looks_unlike_plain_numbers_is_read(library, seed, swapped, wide):
    """Numbers in the other byte order, files mapped into memory, and ids of torch's unsigned types."""
    rng = np.random.default_rng(seed)
    given = ROLLOUTS._replace(rewards=rng.normal(size=N).astype(np.float32))
    expected = GRPO()(given).advantages
    changed = given._replace(groups=given.groups.astype(wide))
    if library.name == "numpy" and swapped:
        changed = given._replace(rewards=given.rewards.astype(">f4"), groups=given.groups.astype(">u2"))
    actual = run(library, GRPO(), changed).advantages
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("given", [ROLLOUTS._asdict(), tuple(ROLLOUTS), list(ROLLOUTS), None], ids=type)
def test_only_rollouts_are_rollouts(given):
    for function in (GRPO(), GRPO().keep, GRPO().factors, credit.DAPO().keep, validate):
        with pytest.raises(
            ValueError, match=f"the rollouts are a {type(given).__name__}; expected credit.Roll"
        ):
            function(given)
