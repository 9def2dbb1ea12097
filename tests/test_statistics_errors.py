"""What is refused with a ValueError, and what becomes NaN where values cannot be looked at."""

import numpy as np
import pytest

import credit

SIZE = 20


@pytest.fixture
def given(library):
    """Arguments [2, 3, V] that are right; a test replaces one of them."""
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(2, 3, SIZE)).astype(np.float32) for _ in range(2))
    ids = rng.integers(SIZE, size=(2, 3)).astype(np.int32)
    return {
        "policy_logits": library.asarray(x),
        "reference_logits": library.asarray(y),
        "token_ids": library.asarray(ids),
    }


@pytest.fixture
def heads(library):
    """Arguments of the form from hidden states that are right: D = 4 and 5."""
    rng = np.random.default_rng(0)
    shapes = {
        "policy_hidden": (2, 3, 4),
        "policy_head": (SIZE, 4),
        "reference_hidden": (2, 3, 5),
        "reference_head": (SIZE, 5),
    }
    drawn = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    ids = rng.integers(SIZE, size=(2, 3)).astype(np.int32)
    return {name: library.asarray(array) for name, array in {**drawn, "token_ids": ids}.items()}


def zeros(*shape, kind=np.float32):
    return np.zeros(shape, kind)


ARRAYS = {
    "reference with fewer rows": ("reference_logits", zeros(2, 2, SIZE), "reference_logits has shape"),
    "other vocabulary": ("reference_logits", zeros(2, 3, SIZE + 1), "reference_logits has shape"),
    "ids with V": ("token_ids", zeros(2, 3, SIZE, kind=np.int32), "token_ids has shape"),
    "ids flat": ("token_ids", zeros(6, kind=np.int32), "token_ids has shape"),
    "float ids": ("token_ids", zeros(2, 3), "token_ids are .*float32; expected integers"),
    "bool ids": ("token_ids", zeros(2, 3, kind=bool), "token_ids are .*bool.*; expected integers"),
    "int logits": ("policy_logits", zeros(2, 3, SIZE, kind=np.int32), "policy_logits is .*int32"),
    "int8 logits": ("reference_logits", zeros(2, 3, SIZE, kind=np.int8), "reference_logits is .*int8"),
    "complex logits": ("policy_logits", zeros(2, 3, SIZE, kind=np.complex64), "policy_logits is .*complex64"),
    "no vocabulary": ("policy_logits", zeros(2, 3, 0), "policy_logits has an empty vocabulary axis"),
    "no axis": ("policy_logits", zeros(), r"policy_logits has shape \(\)"),
    "mask of rows": ("mask", zeros(2), "mask has shape"),
    "mask with V": ("mask", zeros(2, 3, SIZE), "mask has shape"),
    "temperature of rows": ("temperature", zeros(2) + 1, "temperature has shape"),
    "temperature to broadcast": ("temperature", zeros(2, 1) + 1, "temperature has shape"),
    "temperature 0": ("temperature", np.eye(2, 3, dtype=np.float32), r"temperature\[0, 1\] is 0.0"),
    "temperature NaN": ("temperature", zeros(2, 3) + np.nan, r"temperature\[0, 0\] is nan"),
    "temperature infinite": ("temperature", zeros() + np.inf, "temperature is inf"),
    "temperature too small": ("temperature", zeros(2, 3) + 1e-40, r"temperature\[0, 0\] is .*at least 1e-30"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_a_wrong_array_is_refused(library, given, case):
    name, array, message = ARRAYS[case]
    with pytest.raises(ValueError, match=message):
        credit.token_statistics(**given | {name: library.asarray(array)})


SETTINGS = {
    "temperature 0": ({"temperature": 0.0}, "temperature is 0.0; expected a positive number"),
    "temperature below 0": ({"temperature": -1}, "temperature is -1; expected a positive number"),
    "temperature NaN": ({"temperature": float("nan")}, "temperature is nan"),
    "temperature infinite": ({"temperature": float("inf")}, "temperature is inf"),
    "temperature too small": ({"temperature": 1e-40}, "temperature is 1e-40; expected .* at least 1e-30"),
    "temperature text": ({"temperature": "hot"}, "temperature is a str"),
    "temperature list": ({"temperature": [1.0]}, "temperature is a list"),
    "vocab_size 0": ({"vocab_size": 0}, f"vocab_size is 0; expected 1..{SIZE}"),
    "vocab_size above V": ({"vocab_size": SIZE + 1}, f"vocab_size is 21; expected 1..{SIZE}"),
    "list of ids": ({"token_ids": [[0, 0, 0], [0, 0, 0]]}, "token_ids is a list; expected an array"),
    "list of logits": ({"policy_logits": [[0.0]]}, "policy_logits is a list; expected an array"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_a_wrong_setting_is_refused(given, case):
    settings, message = SETTINGS[case]
    with pytest.raises(ValueError, match=message):
        credit.token_statistics(**given | settings)


HEADS = {
    "soft_cap 0": ({"soft_cap": 0.0}, "soft_cap is 0.0"),
    "soft_cap below 0": ({"soft_cap": -30.0}, "soft_cap is -30.0"),
    "soft_cap NaN": ({"soft_cap": float("nan")}, "soft_cap is nan"),
    "soft_cap infinite": ({"soft_cap": float("inf")}, "soft_cap is inf"),
    "scale NaN": ({"scale": float("nan")}, "scale is nan; expected a finite number"),
    "scale infinite": ({"scale": float("inf")}, "scale is inf"),
    "chunk 0": ({"chunk": 0}, "chunk is 0"),
    "vocab_size": ({"vocab_size": SIZE + 1}, "vocab_size is 21"),
    "head transposed": ({"policy_head": zeros(4, SIZE)}, "policy_hidden has shape .* and policy_head"),
    "head flat": ({"policy_head": zeros(4)}, "policy_hidden has shape .* and policy_head"),
    "head of integers": ({"policy_head": zeros(SIZE, 4, kind=np.int8)}, "policy_head is .*int8"),
    "hidden of integers": (
        {"reference_hidden": zeros(2, 3, 5, kind=np.int32)},
        "reference_hidden is .*int32",
    ),
    "heads of two vocabularies": ({"reference_head": zeros(SIZE + 2, 5)}, "the heads have 20 and 22 rows"),
    "bias": ({"reference_bias": zeros(SIZE + 1)}, "reference_bias has shape"),
    "other tokens": ({"reference_hidden": zeros(2, 4, 5)}, "as reference_hidden without its last axis"),
    "ids": ({"token_ids": zeros(2, kind=np.int32)}, "token_ids has shape"),
}


@pytest.mark.parametrize("case", HEADS)
def test_a_wrong_head_is_refused(library, heads, case):
    changed, message = HEADS[case]
    changed = {n: library.asarray(v) if isinstance(v, np.ndarray) else v for n, v in changed.items()}
    with pytest.raises(ValueError, match=message):
        credit.token_statistics_from_hidden(**heads | changed)


@pytest.mark.parametrize("bad", [-1, -100, SIZE, 2**31 - 1])
def test_an_id_outside_the_vocabulary_is_named(library, given, heads, bad):
    ids = np.zeros((2, 3), np.int32)
    ids[1, 2] = bad
    ids = library.asarray(ids)
    message = rf"token_ids\[1, 2\] is {bad}; expected an id in 0..19"
    with pytest.raises(ValueError, match=message):
        credit.token_statistics(**given | {"token_ids": ids})
    with pytest.raises(ValueError, match=message):
        credit.token_statistics_from_hidden(**heads | {"token_ids": ids})
    with pytest.raises(ValueError, match=message):
        credit.selected_log_probs(given["policy_logits"], ids)


def test_an_id_in_the_padding_is_outside_the_vocabulary(library, given):
    ids = library.asarray(np.asarray([[0, 0, 0], [0, 17, 0]], np.int32))
    with pytest.raises(ValueError, match=r"token_ids\[1, 1\] is 17; expected an id in 0..16"):
        credit.token_statistics(**given | {"token_ids": ids}, vocab_size=17)


def test_a_single_id_outside_the_vocabulary_is_named(library):
    with pytest.raises(ValueError, match=r"token_ids\[\] is 5; expected an id in 0..4"):
        credit.selected_log_probs(library.asarray(np.zeros(5, np.float32)), library.asarray(np.asarray(5)))


def test_an_unsigned_id_beyond_the_signed_range_is_outside(library):
    kind, beyond = (np.uint32, 2**32 - 3) if library.name == "jax" else (np.uint64, 2**63 + 1)
    ids = library.asarray(np.asarray([0, beyond], kind))
    with pytest.raises(ValueError, match=rf"token_ids\[1\] is {beyond}; expected an id in 0..4"):
        credit.selected_log_probs(library.asarray(np.zeros((2, 5), np.float32)), ids)


@pytest.mark.parametrize("name", ["policy_logits", "reference_logits", "token_ids", "mask", "temperature"])
def test_arrays_of_two_libraries_are_refused(library, given, name):
    torch = pytest.importorskip("torch")
    foreign = np.ones((2, 3)) if library.name == "torch" else torch.ones(2, 3)
    if name.endswith("logits"):
        foreign = foreign[..., None] + np.zeros(SIZE) if library.name == "torch" else torch.ones(2, 3, SIZE)
    with pytest.raises(ValueError, match="all arrays must be of one library"):
        credit.token_statistics(**given | {name: foreign})


@pytest.mark.parametrize("function", [credit.selected_log_probs, credit.log_probs_and_entropy])
def test_the_differentiable_functions_refuse_the_same(library, given, function):
    logits, ids = given["policy_logits"], given["token_ids"]
    numpy_ids = np.zeros((2, 3), np.int32)
    with pytest.raises(ValueError, match="logits is a list; expected an array"):
        function([[1.0]], ids)
    with pytest.raises(ValueError, match="logits is .*int32"):
        function(library.asarray(zeros(2, 3, SIZE, kind=np.int32)), ids)
    with pytest.raises(ValueError, match="token_ids has shape"):
        function(logits[0, ...], ids)
    with pytest.raises(ValueError, match="temperature is 0"):
        function(logits, ids, temperature=0)
    with pytest.raises(ValueError, match="token_ids are .*float32; expected integers"):
        function(logits, library.asarray(zeros(2, 3)))
    if library.name != "numpy":
        with pytest.raises(ValueError, match="all arrays must be of one library"):
            function(logits, numpy_ids)
