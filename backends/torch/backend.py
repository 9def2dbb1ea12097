"""torch: Triton kernels on CUDA, numpy's blocks on a CPU, elsewhere the reference's folds."""

from collections.abc import Sequence
from typing import Any

import torch

from credit.backends import array_api, limits
from credit.backends.numpy import compiled
from credit.backends.protocol import Shard
from credit.backends.torch import autograd, cpu, head_tiles, linear_head, paths
from credit.backends.vocab import by_name, state, tiles
from credit.backends.vocab.sources import LinearHead, Source

Tensor = torch.Tensor


def token_statistics(
    policy_logits: Tensor,
    reference_logits: Tensor | None,
    token_ids: Tensor,
    temperature: Tensor | float,
    also: Sequence[str] = (),
) -> tuple[Tensor, ...]:
    """See `protocol.Backend`."""
    logits = [side for side in (policy_logits, reference_logits) if side is not None]
    with torch.no_grad():
        if paths.uses_kernels(*logits):
            half = tiles.half_inverse_temperature(temperature, token_ids, torch.float32)
            names = " ".join(by_name.stored(also))
            return by_name.complete(also, paths.import_ops().token_statistics(logits, token_ids, half, names))
        if paths.is_on_cpu(*logits, token_ids):
            half = tiles.half_inverse_temperature(temperature, token_ids, tiles.computing_dtype(*logits))
            return tuple(cpu.token_statistics(logits, token_ids, half, " ".join(also)))
        tile = paths.tile_entries(policy_logits, limits.REFERENCE_TILE_ENTRIES)
        arrays = policy_logits, reference_logits, token_ids, temperature
        return array_api.token_statistics(*arrays, also, tile=tile)


def token_statistics_from_hidden(
    policy_hidden: Tensor,
    policy_head: Tensor,
    reference_hidden: Tensor | None,
    reference_head: Tensor | None,
    token_ids: Tensor,
    temperature: Tensor | float,
    also: Sequence[str] = (),
    *,
    policy_bias: Tensor | None,
    reference_bias: Tensor | None,
    scale: float,
    soft_cap: float | None,
    chunk: int | None,
) -> tuple[Tensor, ...]:
    """See `protocol.Backend`; autocast does not reach it."""
    sources = [LinearHead(policy_hidden, policy_head, policy_bias, scale, soft_cap)]
    if reference_hidden is not None:
        sources.append(LinearHead(reference_hidden, reference_head, reference_bias, scale, soft_cap))
    with torch.no_grad(), torch.autocast(policy_hidden.device.type, enabled=False):
        if paths.uses_kernels(*(array for source in sources for array in source.arrays)):
            half = tiles.half_inverse_temperature(temperature, token_ids, torch.float32)
            return head_tiles.token_statistics(sources, token_ids, half, chunk, also)
        return array_api.token_statistics_from_hidden(
            policy_hidden,
            policy_head,
            reference_hidden,
            reference_head,
            token_ids,
            temperature,
            also,
            policy_bias=policy_bias,
            reference_bias=reference_bias,
            scale=scale,
            soft_cap=soft_cap,
            chunk=chunk,
            tile=paths.tile_entries(policy_hidden, limits.REFERENCE_HEAD_TILE_ENTRIES),
            make_tiles=head_tiles.make_tiles,
            sum_states=cpu.sum_states if paths.is_on_cpu(policy_hidden) else state.sum_states,
        )


def postprocess(
    statistics: tuple[Tensor, ...], ids: Tensor, chosen: Tensor | None, size: int
) -> tuple[Tensor, ...]:
    """See `protocol.Backend`; one launch on a GPU, where a dozen would outlast the kernels of few tokens."""
    with torch.no_grad():
        if paths.uses_kernels(*statistics):
            fields = paths.import_ops().postprocess(*statistics[:4], ids, size, chosen is not None)
            further = statistics[4:]
            if chosen is not None and further:
                further = tuple(torch.where(chosen, torch.stack(further), 0.0))
            return *fields, *further
        return array_api.postprocess(statistics, ids, chosen, size)


def log_probs_and_entropy(
    logits: Tensor, token_ids: Tensor, temperature: Tensor | float
) -> tuple[Tensor, Tensor]:
    """See `protocol.Backend`."""
    half = tiles.half_inverse_temperature(temperature, token_ids, tiles.computing_dtype(logits))
    return autograd.log_probs_and_entropy(logits, token_ids, half)


def selected_log_probs_from_hidden(
    hidden: Tensor,
    head: Tensor,
    token_ids: Tensor,
    temperature: Tensor | float,
    *,
    bias: Tensor | None,
    scale: float,
    soft_cap: float | None,
    chunk: int | None,
) -> Tensor:
    """See `protocol.Backend`; autocast does not reach it."""
    half = tiles.half_inverse_temperature(temperature, token_ids, tiles.computing_dtype(hidden, head))
    source = LinearHead(hidden, head, bias, scale, soft_cap)
    with torch.autocast(hidden.device.type, enabled=False):
        return linear_head.selected_log_probs(source, token_ids, half, chunk)


def describe_path(logits: Tensor, also: Sequence[str] = ()) -> str:
    """See `protocol.Backend`."""
    if paths.uses_kernels(logits):
        return "Triton kernels"
    if not paths.is_on_cpu(logits):
        return "array API"
    return compiled.PATH if cpu.is_compiled(logits, also=also) else "numpy blocks"


def locate_shard(columns: int, group: Any, like: Tensor) -> Shard:
    """See `protocol.ShardedBackend`; torch.distributed is imported only here and below."""
    from credit.backends.torch import sharded

    return sharded.locate_shard(columns, group, like)


def sharded_token_statistics(
    policy: Source,
    reference: Source | None,
    token_ids: Tensor,
    temperature: Tensor | float,
    shard: Shard,
    size: int,
    chunk: int | None,
    also: Sequence[str] = (),
) -> tuple[Tensor, ...]:
    """See `protocol.ShardedBackend`."""
    from credit.backends.torch import sharded

    return sharded.token_statistics(policy, reference, token_ids, temperature, shard, size, chunk, also)


def sharded_log_probs_and_entropy(
    logits: Tensor, token_ids: Tensor, temperature: Tensor | float, shard: Shard, size: int
) -> tuple[Tensor, Tensor]:
    """See `protocol.ShardedBackend`."""
    from credit.backends.torch import sharded

    return sharded.log_probs_and_entropy(logits, token_ids, temperature, shard, size)
