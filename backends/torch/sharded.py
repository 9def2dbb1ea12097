"""A vocabulary sharded over ranks: each folds its own columns, and 8 numbers per token (or 4) cross."""

from functools import reduce
from typing import Any

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

from credit.backends import array_api
from credit.backends.vocab import state, tiles

Tensor = torch.Tensor
LN2 = 0.6931471805599453  # the kernels' exponents are in base 2


def token_statistics(
    policy: Any,
    reference: Any,
    ids: Tensor,
    temperature: Tensor | float,
    vocab_size: int | None,
    group: Any,
    chunk: int | None,
    logits: Any,
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], int]:
    """log p, log q, H and d [...], and all columns; a side is logits, or hidden, head and bias."""
    from credit.backends.torch import linear_head
    from credit.backends.torch.backend import uses_kernels

    local = policy[1].shape[0] if len(policy) > 1 else policy[0].shape[-1]
    start, mine, total = locate_columns(local, vocab_size, group, policy[0].device)
    from_hidden: Any = tiles.from_hidden
    with torch.no_grad(), torch.autocast(policy[0].device.type, enabled=False):
        dtype = tiles.computing_dtype(*policy[:2], *reference[:2])
        half = tiles.half_inverse_temperature(temperature, ids, dtype)
        kernels = uses_kernels(policy[0], reference[0])
        x, y = [
            from_hidden(*side, dtype=dtype, project=linear_head.project, **logits)
            if len(side) > 1
            else _tile_from_logits(side[0], dtype, kernels)
            for side in (policy, reference)
        ]
        whole = kernels and len(policy) == len(reference) == 1
        width = local if whole else min(local, chunk or array_api.CHUNK)
        return statistics(x, y, mine, width, ids - start, half, group, kernels), total


def log_probs_and_entropy(
    logits: Tensor, ids: Tensor, temperature: Tensor | float, vocab_size: int | None, group: Any
) -> tuple[Tensor, Tensor, int]:
    """log p and H [...], differentiable in this rank's logits, and the columns of all ranks."""
    start, mine, total = locate_columns(logits.shape[-1], vocab_size, group, logits.device)
    half = tiles.half_inverse_temperature(temperature, ids, tiles.computing_dtype(logits))
    function: Any = LogProbsAndEntropy
    log_probs, entropy, *_ = function.apply(logits, ids - start, half, mine, group)
    return log_probs, entropy, total


def locate_columns(
    local: int, vocab_size: int | None, group: Any, device: torch.device
) -> tuple[int, int, int]:
    """This rank's first column, how many of its `local` ones are no padding, and those of all ranks."""
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(dist.get_world_size(group))]
    dist.all_gather(sizes, torch.tensor([local], device=device), group=group)
    counts = [int(count) for count in sizes]
    start, total = sum(counts[: dist.get_rank(group)]), sum(counts)
    size = total if vocab_size is None else vocab_size
    return start, min(max(size - start, 0), local), total


def statistics(
    policy: tiles.Tile,
    reference: tiles.Tile,
    size: int,
    chunk: int,
    token_ids: Tensor,
    half: Tensor,
    group: Any,
    kernels: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log p, log q, H and d [...], the same on every rank; ids count from this rank's first column."""
    mine = _fold_columns([policy, reference], size, chunk, token_ids, half, kernels)
    halves = half[..., None]
    whole = reduce(lambda a, b: state.merge_pair(a, b, halves), _gather_states(mine, group))
    return array_api.read_statistics(whole, halves)


def log_prob_and_residuals(
    x: Tensor, size: int, token_ids: Tensor, half: Tensor, group: Any
) -> tuple[Tensor, ...]:
    """log p, H, peak and ln A [...] of the whole vocabulary, from this rank's logits."""
    from credit.backends.torch.backend import uses_kernels

    kernels = uses_kernels(x)
    chunk = max(size, 1) if kernels else array_api.CHUNK
    mine = _fold_columns([_tile_from_logits(x, half.dtype, kernels)], size, chunk, token_ids, half, kernels)
    halves = half[..., None]
    policy, moment = reduce(lambda a, b: state.merge_single(a, b, halves), _gather_states(mine, group))
    log_total = policy.total.log()[..., 0]
    return state.log_prob(policy, halves), state.entropy(policy, moment), policy.peak[..., 0], log_total


def _tile_from_logits(logits: Tensor, dtype: torch.dtype, kernels: bool) -> tiles.Tile:
    """Columns of given logits; the kernels widen what they read."""
    return tiles.from_logits(logits, logits.dtype if kernels else dtype)


def _fold_columns(
    sides: list[tiles.Tile], size: int, chunk: int, ids: Tensor, half: Tensor, kernels: bool
) -> state.Single | state.Pair:
    """The state of this rank's columns, of one model or two."""
    halves = half[..., None]
    if not size:
        return _empty_state(len(sides), halves)

    def by_kernels(start: int, width: int) -> Any:
        from credit.backends.torch import ops

        x, *y = (side(start, width) for side in sides)
        part = ops.token_states(x, y[0] if y else None, ids, half, start, 1)
        peak, total, moment, taken, *other = part.reshape(*ids.shape, 1, 8).unbind(-1)
        reference = (other[0], other[1], other[3], other[2])
        return _unpack_state((peak, total, taken, moment * LN2, *reference[: 4 * len(y)]))

    def by_library(start: int, width: int) -> Any:
        measure: Any = state.pair_state if len(sides) == 2 else state.single_state
        return measure(*(side(start, width) for side in sides), ids[..., None] - start, halves)

    merge = state.merge_pair if len(sides) == 2 else state.merge_single
    return state.fold_chunks(by_kernels if kernels else by_library, merge, size, chunk, halves)


def _empty_state(models: int, like: Tensor) -> state.Single | state.Pair:
    """The state of no columns, for a rank that holds padding alone."""
    zero, lowest = torch.zeros_like(like), torch.full_like(like, torch.finfo(like.dtype).min)
    return _unpack_state((lowest, zero, zero, zero) * models)


def _gather_states(local: state.Single | state.Pair, group: Any) -> list[Any]:
    """The states of all ranks, in their order, so that every rank joins them alike."""
    policy, moment, *other = local
    reference = [*other[0], other[1]] if other else []
    mine = torch.stack([*policy, moment, *reference])
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, mine, group=group)
    return [_unpack_state(tuple(part)) for part in parts]


def _unpack_state(fields: tuple[Tensor, ...]) -> state.Single | state.Pair:
    policy = state.Mass(*fields[:3])
    if len(fields) == 4:
        return state.Single(policy, fields[3])
    return state.Pair(policy, fields[3], state.Mass(*fields[4:7]), fields[7])


class LogProbsAndEntropy(torch.autograd.Function):
    """log p and H of the whole vocabulary; a rank's logits get their gradient without communication."""

    @staticmethod
    def forward(logits: Tensor, ids: Tensor, half: Tensor, size: int, group: Any) -> tuple[Tensor, ...]:
        return log_prob_and_residuals(logits[..., :size], size, ids, half, group)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        logits, ids, half, ctx.size, _ = inputs
        _, entropy, peak, log_total = output
        ctx.mark_non_differentiable(peak, log_total)
        ctx.save_for_backward(logits, ids, half, peak, log_total, entropy)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        from credit.backends.torch.backend import grad_logits

        logits, *saved = ctx.saved_tensors
        result = torch.zeros_like(logits, memory_format=torch.contiguous_format)
        if ctx.size:
            result[..., : ctx.size] = grad_logits(logits[..., : ctx.size], *saved, *given[:2])
        return result, None, None, None, None
