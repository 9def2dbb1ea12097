"""A linear head's logits on torch: tiles by the vendor's matmul, folded by the kernels on a GPU."""

from collections.abc import Sequence

import torch

from credit.backends import limits
from credit.backends.torch import paths
from credit.backends.vocab import by_name, loop, tiles
from credit.backends.vocab.sources import LinearHead, Source

Tensor = torch.Tensor


def project(hidden: Tensor, head: Tensor, dtype: torch.dtype) -> Tensor:
    """hidden [..., D] times head [W, D] in `dtype`; tensor cores take 16-bit inputs and sum in float32."""
    if not uses_tensor_cores(hidden, head):
        return tiles.project(hidden, head, dtype)
    flat = torch.mm(hidden.reshape(-1, hidden.shape[-1]), head.t(), out_dtype=dtype)
    return flat.reshape(*hidden.shape[:-1], head.shape[0])


def make_tiles(source: Source, dtype: torch.dtype) -> tiles.Tile:
    """As `tiles.from_source`; a product is scaled and capped in place, so no gradient may flow through it."""
    if not isinstance(source, LinearHead):
        return tiles.from_source(source, dtype)
    scale, soft_cap = source.scale, source.soft_cap
    products = tiles.from_source(source._replace(scale=1.0, soft_cap=None), dtype, project=project)

    def tile(start: int, width: int) -> Tensor:
        logits: Tensor = products(start, width)
        if scale != 1.0:
            logits *= scale
        return logits if soft_cap is None else logits.div_(soft_cap).tanh_().mul_(soft_cap)

    return tile


def token_statistics(
    sources: Sequence[LinearHead], token_ids: Tensor, half: Tensor, chunk: int | None, also: Sequence[str]
) -> tuple[Tensor, ...]:
    """log p, log q, H, d and those of `also` [...] of one model or two by the kernels; half is 1 / 2T [...].

    Of one model log q and d are NaN.
    """
    ops, names = paths.import_ops(), by_name.stored(also)
    chunk = min(sources[0].columns, chunk or limits.CUDA_HEAD_CHUNK_ENTRIES)
    states = fold_by_kernels(sources, token_ids.reshape(-1), half.reshape(-1), chunk, names)
    merged = ops.merge_parts(states, half.reshape(-1), len(sources) == 2, " ".join(names))
    found = ops.order_statistics(merged, len(sources))
    return by_name.complete(also, tuple(found.reshape(len(found), *token_ids.shape)))


def fold_by_kernels(
    sources: Sequence[LinearHead], ids: Tensor, half: Tensor, chunk: int, names: Sequence[str] = ()
) -> Tensor:
    """The states [N, parts, fields] of ids [N]: a part of the heads after the other, all rows with each."""
    hidden = [source.hidden.reshape(-1, source.hidden.shape[-1]) for source in sources]
    limit = max(1, limits.CUDA_HEAD_ROWS * limits.CUDA_HEAD_CHUNK_ENTRIES // chunk)
    parts = []
    for start, width in loop.split_vocabulary(sources[0].columns, chunk):
        heads = [take_entries(source, slice(start, start + width), torch.float32) for source in sources]
        blocks = zip(*(tensor.split(limit) for tensor in (ids, half, *hidden)), strict=True)
        rows = [_fold_tile(heads, inputs, ids, half, start, names) for ids, half, *inputs in blocks]
        parts.append(torch.cat(rows))
    return torch.cat(parts, 1)


def _fold_tile(
    heads: Sequence[LinearHead],
    hidden: Sequence[Tensor],
    ids: Tensor,
    half: Tensor,
    start: int,
    names: Sequence[str],
) -> Tensor:
    """The states [rows, 1, fields] of a tile, whose first entry has id `start`.

    The kernel adds the bias, scales and caps as it reads, and leaves out rows whose id is UNREAD.
    """
    products = [project(x, head.head, torch.float32) for x, head in zip(hidden, heads, strict=True)]
    x, y = (*products, None)[:2]
    x_bias, y_bias = (*(head.bias for head in heads), None)[:2]
    more = " ".join(names), x_bias, y_bias, heads[0].scale, heads[0].soft_cap
    states: Tensor = paths.import_ops().token_states(x, y, ids, half, start, 1, *more)
    return states


def take_entries(source: LinearHead, part: slice, dtype: torch.dtype) -> LinearHead:
    """A part of the vocabulary, its weights in the dtype that `project` multiplies in, once for all rows."""
    hidden, head, bias, *_ = source
    weight = head[part] if uses_tensor_cores(hidden, head) else head[part].to(dtype)
    return source._replace(head=weight, bias=None if bias is None else bias[part])


def uses_tensor_cores(hidden: Tensor, head: Tensor) -> bool:
    """Whether 16 bits are multiplied as they are and summed in float32, which not every build for AMD can."""
    low = hidden.dtype == head.dtype and hidden.dtype in (torch.bfloat16, torch.float16)
    return low and hidden.is_cuda and torch.version.hip is None
