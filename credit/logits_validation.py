"""Checks of what the token statistics are computed from: one path, with a sharded vocabulary or not."""

from collections.abc import Iterable, Sequence
from math import isfinite
from numbers import Real
from typing import Any

from array_api_compat import is_array_api_obj

from credit import validation
from credit.backends import choose_sharded_backend
from credit.backends.arrays import FLOATS, dtype_name
from credit.backends.protocol import Shard
from credit.backends.vocab.by_name import DIVERGENCES, NAMES
from credit.backends.vocab.sources import LinearHead, Logits, Source
from credit.backends.vocab.tiles import UNREAD
from credit.types import Array


def prepare_logits(name: str, logits: Array, vocab_size: int | None, sharded: bool) -> Logits:
    """The logits [..., V], checked and without padding columns.

    The columns of a sharded vocabulary stay whole: which of them are padding depends on those of all ranks.
    """
    check_floating(name, logits)
    if logits.ndim < 1:
        raise ValueError(f"{name} has shape (); expected [..., V]")
    if sharded:
        return Logits(logits)
    check_vocab_size(name, logits.shape[-1], vocab_size)
    return Logits(logits if vocab_size in (None, logits.shape[-1]) else logits[..., :vocab_size])


def prepare_head(
    prefix: str,
    hidden: Array,
    head: Array,
    bias: Array | None,
    *,
    scale: float,
    soft_cap: float | None,
    vocab_size: int | None,
    sharded: bool,
) -> LinearHead:
    """The linear head, checked and without padding rows, as in `prepare_logits`."""
    _check_head_shapes(prefix, hidden, head, bias)
    if not isfinite(scale):
        raise ValueError(f"scale is {scale}; expected a finite number")
    if soft_cap is not None and not 0 < soft_cap < float("inf"):
        raise ValueError(f"soft_cap is {soft_cap}; expected a positive number")
    if not sharded:
        head = _slice_rows(f"{prefix}head", head, vocab_size)
        bias = None if bias is None else _slice_rows(f"{prefix}bias", bias, vocab_size)
    return LinearHead(hidden, head, bias, scale, soft_cap)


def _slice_rows(name: str, array: Array, vocab_size: int | None) -> Array:
    check_vocab_size(name, array.shape[0], vocab_size)
    return array if vocab_size in (None, array.shape[0]) else array[:vocab_size, ...]


def has_reference(hidden: Array | None, head: Array | None, bias: Array | None) -> bool:
    """Whether there is a reference model; a ValueError if there is only a part of one."""
    if (hidden is None) != (head is None) or (hidden is None and bias is not None):
        raise ValueError(
            "reference_hidden and reference_head are both given or, without a reference, both None, and then "
            "there is no reference_bias"
        )
    return hidden is not None


def check_same_vocabulary(policy: LinearHead, reference: LinearHead) -> None:
    """A ValueError unless both heads have as many rows."""
    if policy.columns != reference.columns:
        raise ValueError(
            f"the heads have {policy.columns} and {reference.columns} rows; expected one "
            "vocabulary (give vocab_size if they are padded differently)"
        )


def locate_shard(source: Source, vocab_size: int | None, group: Any) -> tuple[Shard | None, int]:
    """This rank's part of a sharded vocabulary, None without a process group, and the size of the whole."""
    if group is None:
        return None, source.columns
    like = source.arrays[0]
    shard = choose_sharded_backend(like).locate_shard(source.columns, group, like)
    check_vocab_size("the sharded vocabulary", shard.total, vocab_size)
    return shard, shard.total if vocab_size is None else vocab_size


def check_vocab_size(name: str, size: int, vocab_size: int | None) -> None:
    """A ValueError unless there is a vocabulary, and vocab_size lies within it."""
    if size < 1:
        raise ValueError(f"{name} has an empty vocabulary axis")
    if vocab_size is not None and not 1 <= vocab_size <= size:
        raise ValueError(f"vocab_size is {vocab_size}; expected 1..{size}, the entries of {name}")


def check_floating(name: str, array: Array) -> None:
    """A ValueError for bool and integers."""
    if dtype_name(array) not in FLOATS:  # numpy does not know ml_dtypes.bfloat16 as floating
        raise ValueError(f"{name} is {array.dtype}; expected floating point")


def _check_head_shapes(prefix: str, hidden: Array, head: Array, bias: Array | None) -> None:
    """A ValueError unless hidden [..., D], head [V, D] and bias [V] are floating and fit each other."""
    for name, array in (("hidden", hidden), ("head", head), ("bias", bias)):
        if array is not None:
            check_floating(prefix + name, array)
    if head.ndim != 2 or hidden.ndim < 1 or hidden.shape[-1] != head.shape[1]:
        raise ValueError(
            f"{prefix}hidden has shape {tuple(hidden.shape)} and {prefix}head "
            f"{tuple(head.shape)}; expected [..., D] and [V, D]"
        )
    if bias is not None:
        validation.check_shape(f"{prefix}bias", bias, (head.shape[0],), f"one entry per row of {prefix}head")


def check_chunk(chunk: int | None) -> None:
    """A ValueError unless it is positive or None."""
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk is {chunk}; expected a positive number of vocabulary entries")


def check_names(also: Sequence[str], *, alone: bool) -> tuple[str, ...]:
    """The names of statistics beside the four; a ValueError for an unknown or repeated one.

    Of a policy that is alone there is no divergence.
    """
    names = tuple(also) if isinstance(also, Iterable) and not isinstance(also, str) else (also,)
    known = not isinstance(also, str) and all(name in NAMES for name in names)
    if not known or len(set(names)) < len(names):
        raise ValueError(f"also is {also!r}; expected a tuple of different names among {', '.join(NAMES)}")
    for name in names if alone else ():
        if name in DIVERGENCES:
            raise ValueError(f"also asks for {name!r}, which needs a reference, and there is none")
    return names


def prepare_token_ids(
    like: Array, token_ids: Array, temperature: Array | float, mask: Array | None, size: int
) -> tuple[Array, Array | None]:
    """Ids that are safe to read, UNREAD where the mask is 0, and the mask as bool."""
    given = temperature if is_array_api_obj(temperature) and not isinstance(temperature, Real) else None
    xp = validation.check_same_library(logits=like, token_ids=token_ids, mask=mask, temperature=given)
    tokens = tuple(like.shape[:-1])
    validation.check_shape("token_ids", token_ids, tokens, "as the logits without their last axis")
    if not xp.isdtype(token_ids.dtype, "integral"):
        raise ValueError(f"token_ids are {token_ids.dtype}; expected integers")
    if mask is not None:
        validation.check_shape("mask", mask, tokens, "as token_ids")
    validation.check_token_ids(token_ids, mask, size)
    # An id beyond the signed type turns negative, which no vocabulary holds.
    ids = xp.astype(token_ids, xp.__array_namespace_info__().default_dtypes()["indexing"], copy=False)
    validation.check_temperature(temperature, tokens)
    chosen = None
    if mask is not None:
        chosen = xp.astype(mask, xp.bool)
        ids = xp.where(chosen, ids, UNREAD)
    return ids, chosen
