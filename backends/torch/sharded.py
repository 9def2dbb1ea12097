"""A vocabulary sharded over ranks: each folds its own columns, and 8 numbers per token (or 4) cross.

Each statistic that is asked for beside the four adds at most one number.
"""

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

import torch
import torch.distributed as dist

from credit.backends import array_api, limits
from credit.backends.protocol import Shard
from credit.backends.torch import autograd, head_tiles, paths
from credit.backends.torch.derivatives import apply_function
from credit.backends.vocab import by_name, loop, state, tiles
from credit.backends.vocab.sources import LinearHead, Logits, Source

Tensor = torch.Tensor
LN2 = 0.6931471805599453  # turns the kernels' moment, whose exponents are in base 2, into nats


def locate_shard(columns: int, group: Any, like: Tensor) -> Shard:
    """Where this rank's columns lie among those of all ranks."""
    sizes = [torch.zeros(1, dtype=torch.int64, device=like.device) for _ in range(dist.get_world_size(group))]
    dist.all_gather(sizes, torch.tensor([columns], device=like.device), group=group)
    counts = [int(count) for count in sizes]
    return Shard(group, sum(counts[: dist.get_rank(group)]), columns, sum(counts))


def token_statistics(
    policy: Source,
    reference: Source | None,
    token_ids: Tensor,
    temperature: Tensor | float,
    shard: Shard,
    size: int,
    chunk: int | None,
    also: Sequence[str],
) -> tuple[Tensor, ...]:
    """log p, log q, H, d and those of `also` [...], the same on every rank."""
    sources = [policy] if reference is None else [policy, reference]
    arrays = [array for source in sources for array in source.arrays]
    with torch.no_grad(), torch.autocast(arrays[0].device.type, enabled=False):
        dtype = tiles.computing_dtype(*arrays)
        half = tiles.half_inverse_temperature(temperature, token_ids, dtype)[..., None]
        local = _fold_columns(sources, dtype, token_ids[..., None] - shard.start, half,
                              _count_real_columns(shard, size), chunk, also)  # fmt: skip
        return array_api.read_statistics(_merge_ranks(local, half, shard.group, also), half, also)


def log_probs_and_entropy(
    logits: Tensor, token_ids: Tensor, temperature: Tensor | float, shard: Shard, size: int
) -> tuple[Tensor, Tensor]:
    """log p and H [...] of the whole vocabulary, differentiable in this rank's logits."""
    half = tiles.half_inverse_temperature(temperature, token_ids, tiles.computing_dtype(logits))
    columns = _count_real_columns(shard, size)
    arguments = logits, token_ids - shard.start, half, columns, shard.group
    log_probs, entropy, *_ = apply_function(_LogProbsAndEntropy, *arguments)
    return log_probs, entropy


class _LogProbsAndEntropy(torch.autograd.Function):
    """log p and H of the whole vocabulary; a rank's logits get their gradient without communication."""

    @staticmethod
    def forward(logits: Tensor, ids: Tensor, half: Tensor, columns: int, group: Any) -> tuple[Tensor, ...]:
        ids, half = ids[..., None], half[..., None]
        local = _fold_columns([Logits(logits)], half.dtype, ids, half, columns, None)
        policy, moment, _ = _merge_ranks(local, half, group)
        log_prob, entropy = state.log_prob(policy, half), state.entropy(policy, moment)
        return log_prob, entropy, policy.peak[..., 0], policy.total.log()[..., 0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        logits, ids, half, ctx.columns, _ = inputs
        _, entropy, peak, log_total = output
        ctx.mark_non_differentiable(peak, log_total)
        ctx.save_for_backward(logits, ids, half, peak, log_total, entropy)

    @staticmethod
    def backward(ctx: Any, *grad_output: Tensor) -> tuple[Tensor | None, ...]:
        logits, ids, half, *residuals = ctx.saved_tensors
        result = torch.zeros_like(logits, memory_format=torch.contiguous_format)
        if ctx.columns:
            real = slice(ctx.columns)
            arrays = logits[..., real], ids, half, residuals
            result[..., real] = autograd.grad_logits(*arrays, *grad_output[:2])
        return result, None, None, None, None


def _count_real_columns(shard: Shard, size: int) -> int:
    """How many of this rank's columns are no padding."""
    return min(max(size - shard.start, 0), shard.columns)


def _fold_columns(
    sources: list[Source],
    dtype: torch.dtype,
    ids: Tensor,
    half: Tensor,
    columns: int,
    chunk: int | None,
    also: Sequence[str] = (),
) -> state.State:
    """The state of this rank's first `columns` columns, of one model or two; ids and half are [..., 1]."""
    if not columns:
        return _empty_state(len(sources), half, also)
    if paths.uses_kernels(*(source.arrays[0] for source in sources)):
        return _fold_by_kernels(sources, ids, half, columns, chunk, also)
    sides = [head_tiles.make_tiles(source, dtype) for source in sources]

    def part(start: int, width: int) -> Any:
        return state.sum_states([side(start, width) for side in sides], ids - start, half, also)

    return loop.fold_chunks(part, columns, min(columns, chunk or limits.REFERENCE_CHUNK_ENTRIES), half)


def _fold_by_kernels(
    sources: Sequence[Source],
    ids: Tensor,
    half: Tensor,
    columns: int,
    chunk: int | None,
    also: Sequence[str],
) -> state.State:
    names, tokens = by_name.stored(also), (ids[..., 0], half[..., 0])
    logits = [source.logits[..., :columns] for source in sources if isinstance(source, Logits)]
    heads = [_take_columns(source, columns) for source in sources if isinstance(source, LinearHead)]
    if logits:  # the kernels widen them as they read them, all in one pass
        x, y = (*logits, None)[:2]
        states = paths.import_ops().token_states(x, y, *tokens, 0, 1, " ".join(names))
    else:
        width = min(columns, chunk or limits.CUDA_HEAD_CHUNK_ENTRIES)
        flat_ids, flat_half = (tensor.reshape(-1) for tensor in tokens)
        states = head_tiles.fold_by_kernels(heads, flat_ids, flat_half, width, names)
    parts = [part.reshape(*ids.shape, part.shape[-1]) for part in states.unbind(1)]
    return reduce(partial(state.merge, half=half), (_read_kernel(part, len(sources), also) for part in parts))


def _take_columns(source: LinearHead, columns: int) -> LinearHead:
    bias = None if source.bias is None else source.bias[:columns]
    return source._replace(head=source.head[:columns], bias=bias)


def _read_kernel(part: Tensor, models: int, also: Sequence[str]) -> state.State:
    """A state as the kernels store it, [..., 1, fields], of which one model leaves four out."""
    fields = list(part.unbind(-1))
    fields[3] = fields[3] * LN2
    return state.unpack(fields if models == 2 else fields[:4] + fields[8:], also)


def _empty_state(models: int, like: Tensor, also: Sequence[str]) -> state.State:
    """The state of no columns, for a rank that holds padding alone."""
    zero, lowest = torch.zeros_like(like), torch.full_like(like, torch.finfo(like.dtype).min)
    fields = (lowest, zero, zero, zero) * models
    return state.unpack((*fields, *(zero for _ in by_name.stored(also))), also)


def _merge_ranks(local: state.State, half: Tensor, group: Any, also: Sequence[str] = ()) -> Any:
    """The state of the whole vocabulary: every rank joins all states in the same order."""
    packed = torch.stack(state.pack(local))
    parts = [torch.empty_like(packed) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, packed, group=group)
    return reduce(lambda a, b: state.merge(a, b, half), [state.unpack(tuple(part), also) for part in parts])
