"""The token statistics of a vocabulary sharded over ranks, as tensor-parallel heads leave it."""

from math import log
from typing import Any

from array_api_compat import is_jax_array, is_torch_array

from credit import checks
from credit.backends import tiles
from credit.backends.arrays import namespace, stop_gradient
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
    checks.same_library(policy=like, reference=reference[0], token_ids=token_ids, mask=mask)
    local = policy[1].shape[0] if len(policy) > 1 else like.shape[-1]
    other = reference[1].shape[0] if len(reference) > 1 else reference[0].shape[-1]
    if local != other:
        raise ValueError(f"this rank holds {local} columns of the policy and {other} of the reference")
    checks.shape("token_ids", token_ids, tuple(like.shape[:-1]), "as the policy's without its last axis")
    checks.temperature(temperature, tuple(token_ids.shape))
    run = _on_torch if is_torch_array(like) else _on_jax
    if not (is_torch_array(like) or is_jax_array(like)):
        raise ValueError("a sharded vocabulary needs torch tensors, or JAX arrays inside shard_map")
    xp = namespace(token_ids)
    chosen = None if mask is None else xp.astype(mask, xp.bool)
    ids = _indices(token_ids)
    ids = ids if chosen is None else xp.where(chosen, ids, 0)
    statistics, size = run(policy, reference, ids, temperature, vocab_size, group, chunk, logits)
    known = (ids >= 0) & (ids < size)
    log_p, log_q, entropy, deviation = statistics
    entropy = entropy / log(size) if size > 1 else entropy * 0.0
    entropy = xp.where(entropy > 1.0, 1.0, entropy)
    fields = [xp.where(known, log_p, float("nan")), xp.where(known, log_q, float("nan")), entropy, deviation]
    if chosen is not None:
        fields = [xp.where(chosen, field, 0.0) for field in fields]
    return TokenStatistics(*(stop_gradient(field) for field in fields))


def log_probs_and_entropy(
    logits: Array, token_ids: Array, temperature: Array | float, vocab_size: int | None, group: Any
) -> tuple[Array, Array]:
    """See `credit.log_probs_and_entropy`; torch only."""
    if not is_torch_array(logits):
        raise ValueError("log-probs of a sharded vocabulary need torch tensors")
    checks.same_library(logits=logits, token_ids=token_ids)
    checks.shape("token_ids", token_ids, tuple(logits.shape[:-1]), "as the logits without their last axis")
    checks.temperature(temperature, tuple(token_ids.shape))
    import torch

    from credit.backends.torch import sharded

    start, mine, total = sharded.columns(logits.shape[-1], vocab_size, group, logits.device)
    ids, size = _indices(token_ids), _size(vocab_size, total)
    half = tiles.halved(temperature, ids, tiles.computing_dtype(logits))
    function: Any = sharded.LogProbsAndEntropy
    log_probs, entropy, *_ = function.apply(logits, ids - start, half, mine, group)
    return torch.where((ids >= 0) & (ids < size), log_probs, float("nan")), entropy


def _indices(token_ids: Array) -> Array:
    xp = namespace(token_ids)
    return xp.astype(token_ids, xp.__array_namespace_info__().default_dtypes()["indexing"], copy=False)


def _on_torch(
    policy: Side,
    reference: Side,
    ids: Array,
    temperature: Array | float,
    vocab_size: int | None,
    group: Any,
    chunk: int | None,
    logits: Any,
) -> tuple[Any, int]:
    import torch

    from credit.backends import array_api
    from credit.backends import torch as backend
    from credit.backends.torch import hidden, sharded

    local = policy[1].shape[0] if len(policy) > 1 else policy[0].shape[-1]
    start, mine, total = sharded.columns(local, vocab_size, group, policy[0].device)
    with torch.no_grad(), torch.autocast(policy[0].device.type, enabled=False):
        dtype = tiles.computing_dtype(*policy[:2], *reference[:2])
        half = tiles.halved(temperature, ids, dtype)
        from_hidden: Any = tiles.from_hidden
        x, y = [
            from_hidden(*side, dtype=dtype, project=hidden.project, **logits)
            if len(side) > 1
            else tiles.from_logits(side[0], dtype)
            for side in (policy, reference)
        ]
        kernels = backend.on_kernels(policy[0], reference[0])
        width = min(local, chunk or array_api.CHUNK)
        statistics = sharded.statistics(x, y, mine, width, ids - start, half, group, kernels)
    return statistics, _size(vocab_size, total)


def _on_jax(
    policy: Side,
    reference: Side,
    ids: Array,
    temperature: Array | float,
    vocab_size: int | None,
    axis: str,
    chunk: int | None,
    logits: Any,
) -> tuple[Any, int]:
    from jax import lax

    from credit.backends import jax as backend
    from credit.backends.jax import sharded
    from credit.backends.jax.hidden import project, take

    local = policy[1].shape[0] if len(policy) > 1 else policy[0].shape[-1]
    dtype = tiles.computing_dtype(*policy[:2], *reference[:2])
    from_hidden: Any = tiles.from_hidden
    x, y = [
        from_hidden(*side, dtype=dtype, take=take, project=project, **logits)
        if len(side) > 1
        else tiles.from_logits(side[0], dtype, take)
        for side in (policy, reference)
    ]

    def fold(part: Any, merge: Any, size: int, rows: int, half: Array) -> Any:
        return backend._fold(part, merge, size, chunk, rows, half)

    total = local * lax.axis_size(axis)
    half = backend._halved(temperature, ids, dtype)
    statistics = sharded.statistics(x, y, local, vocab_size, fold, ids, half, axis)
    return statistics, _size(vocab_size, total)


def _size(vocab_size: int | None, total: int) -> int:
    if vocab_size is not None and not 1 <= vocab_size <= total:
        raise ValueError(f"vocab_size is {vocab_size}; expected 1..{total}, the columns of all ranks")
    return total if vocab_size is None else vocab_size
