"""The token statistics of a vocabulary sharded over ranks, as tensor-parallel heads leave it."""

from typing import Any

from credit import validation
from credit.backends import array_api, choose_backend
from credit.backends.arrays import is_in_range, namespace, stop_gradient
from credit.types import Array, TokenStatistics

Side = Any  # a tuple: logits [..., V'], or hidden states [..., D], head [V', D] and bias [V'] or None


def token_statistics(
    policy: Side,
    reference: Side,
    token_ids: Array,
    temperature: Array | float,
    mask: Array | None,
    vocab_size: int | None,
    group: Any,
    chunk: int | None = None,
    **logits: Any,
) -> TokenStatistics:
    """See `credit.token_statistics`; the group is one of torch, or the name of a mesh axis in shard_map."""
    like = policy[0]
    validation.check_same_library(policy=like, reference=reference[0], token_ids=token_ids, mask=mask)
    local = policy[1].shape[0] if len(policy) > 1 else like.shape[-1]
    other = reference[1].shape[0] if len(reference) > 1 else reference[0].shape[-1]
    if local != other:
        raise ValueError(f"this rank holds {local} columns of the policy and {other} of the reference")
    validation.check_shape(
        "token_ids", token_ids, tuple(like.shape[:-1]), "as the policy's without its last axis"
    )
    validation.check_temperature(temperature, tuple(token_ids.shape))
    run = getattr(choose_backend(like), "sharded_token_statistics", None)
    if run is None:
        raise ValueError("a sharded vocabulary needs torch tensors, or JAX arrays inside shard_map")
    xp = namespace(token_ids)
    chosen = None if mask is None else xp.astype(mask, xp.bool)
    ids = _as_index_type(token_ids)
    ids = ids if chosen is None else xp.where(chosen, ids, 0)
    settings = temperature, vocab_size, group, chunk, logits
    statistics, columns = run(policy, reference, ids, *settings)
    size = _check_vocab_size(vocab_size, columns)
    fields = array_api.postprocess(statistics, ids, chosen, size)
    return TokenStatistics(*(stop_gradient(field) for field in fields))


def log_probs_and_entropy(
    logits: Array, token_ids: Array, temperature: Array | float, vocab_size: int | None, group: Any
) -> tuple[Array, Array]:
    """See `credit.log_probs_and_entropy`; the group as of `token_statistics`."""
    run = getattr(choose_backend(logits), "sharded_log_probs_and_entropy", None)
    if run is None:
        raise ValueError("a sharded vocabulary needs torch tensors, or JAX arrays inside shard_map")
    validation.check_same_library(logits=logits, token_ids=token_ids)
    validation.check_shape(
        "token_ids", token_ids, tuple(logits.shape[:-1]), "as the logits without their last axis"
    )
    validation.check_temperature(temperature, tuple(token_ids.shape))
    ids, xp = _as_index_type(token_ids), namespace(token_ids)
    log_probs, entropy, columns = run(logits, ids, temperature, vocab_size, group)
    known = is_in_range(ids, _check_vocab_size(vocab_size, columns))
    return xp.where(known, log_probs, float("nan")), entropy


def _as_index_type(token_ids: Array) -> Array:
    xp = namespace(token_ids)
    return xp.astype(token_ids, xp.__array_namespace_info__().default_dtypes()["indexing"], copy=False)


def _check_vocab_size(vocab_size: int | None, total: int) -> int:
    if vocab_size is not None and not 1 <= vocab_size <= total:
        raise ValueError(f"vocab_size is {vocab_size}; expected 1..{total}, the columns of all ranks")
    return total if vocab_size is None else vocab_size
