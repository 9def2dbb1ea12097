"""From hidden states on torch: tiles by the vendor's matmul, folded by the kernels where there is a GPU."""

from functools import partial
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from credit.backends import array_api
from credit.backends.torch import cpu
from credit.backends.vocab import state, tiles

Tensor = torch.Tensor
CUDA_CHUNK = 8192  # with ROWS, 134 MB of float32 per model
CUDA_ROWS = 4096


def project(hidden: Tensor, head: Tensor, dtype: torch.dtype) -> Tensor:
    """hidden [..., D] times head [W, D] in `dtype`; tensor cores take 16-bit inputs and sum in float32."""
    if not _uses_tensor_cores(hidden, head):
        return tiles.project(hidden, head, dtype)
    flat = torch.mm(hidden.reshape(-1, hidden.shape[-1]), head.t(), out_dtype=dtype)
    return flat.reshape(*hidden.shape[:-1], head.shape[0])


def token_statistics(
    policy: tuple[Tensor, Tensor, Tensor | None],
    reference: tuple[Tensor, Tensor, Tensor | None],
    token_ids: Tensor,
    half: Tensor,
    chunk: int | None,
    **logits: Any,
) -> Any:
    """As `array_api.token_statistics_from_hidden`, folded by the kernels; a side is hidden, head, bias."""
    from credit.backends.torch import ops

    chunk = min(policy[1].shape[0], chunk or CUDA_CHUNK)
    source: Any = partial(tiles.from_hidden, dtype=torch.float32, project=project, **logits)

    def rows(x: Tensor, y: Tensor, ids: Tensor, half: Tensor) -> tuple[Tensor, ...]:
        sides = source(x, *policy[1:]), source(y, *reference[1:])
        states = [
            ops.token_states(*(side(start, width) for side in sides), ids, half, start, 1)
            for start, width in _split_vocabulary(policy[1].shape[0], chunk)
        ]
        return tuple(ops.merge_parts(torch.cat(states, 1), half, True).reshape(4, *ids.shape))

    arrays = (policy[0], reference[0], token_ids, half)
    return tiles.map_rows(rows, arrays, token_ids.ndim, _rows_per_chunk(chunk))


class SelectedLogProbs(torch.autograd.Function):
    """log p [N] of hidden [N, D] and head [V, D]; the logits' tiles are made again for the gradient."""

    @staticmethod
    def forward(
        hidden: Tensor,
        head: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        half: Tensor,
        settings: tuple[float, float | None, int],
        kernels: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        scale, soft_cap, chunk = settings
        logits: Any = {"bias": bias, "scale": scale, "soft_cap": soft_cap}
        if kernels:
            return _log_prob_and_residuals(hidden, head, ids, half, chunk, **logits)
        return array_api.log_prob_and_residuals_from_hidden(
            hidden,
            head,
            ids,
            half,
            chunk=chunk,
            project=project,
            tile=chunk * CUDA_ROWS,
            single=cpu.single_state if cpu.is_on_cpu(hidden) else state.single_state,
            **logits,
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.settings, ctx.kernels = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*tensors, *output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        hidden, head, bias, ids, half, peak, log_total = ctx.saved_tensors
        scale, soft_cap, chunk = ctx.settings
        of_hidden = torch.zeros(hidden.shape, dtype=half.dtype, device=hidden.device)
        of_head, of_bias = torch.empty_like(head), None if bias is None else torch.empty_like(bias)
        for start, width in _split_vocabulary(head.shape[0], chunk):
            weight, part = head[start : start + width], slice(start, start + width)
            of_weight = torch.zeros(weight.shape, dtype=half.dtype, device=head.device)
            of_offset = half.new_zeros(width)
            for block in range(0, hidden.shape[0], CUDA_ROWS):
                rows = slice(block, block + CUDA_ROWS)
                offset = None if bias is None else bias[part]
                x = tiles.from_hidden(
                    hidden[rows], weight, offset, scale, soft_cap, half.dtype, project=project
                )
                logits = x(0, width)
                per_token = (t[rows] for t in (ids - start, half, peak, log_total, given))
                slope = _grad_logits(logits, *per_token, kernels=ctx.kernels)
                if soft_cap is not None:
                    slope *= 1.0 - (logits / soft_cap) ** 2
                slope *= scale
                of_offset += slope.sum(0)
                low = slope.to(head.dtype) if _uses_tensor_cores(hidden, head) else slope
                of_hidden[rows] += project(low, weight.t(), half.dtype)
                of_weight += project(low.t(), hidden[rows].t(), half.dtype)
            of_head[part] = of_weight
            if of_bias is not None:
                of_bias[part] = of_offset
        return of_hidden.to(hidden.dtype), of_head, of_bias, None, None, None, None


def selected_log_probs(
    hidden: Tensor, head: Tensor, bias: Tensor | None, ids: Tensor, half: Tensor, settings: Any, kernels: bool
) -> Tensor:
    """log p [...] of hidden states [..., D], differentiable in hidden, head and bias."""
    scale, soft_cap, chunk = settings
    chunk = min(head.shape[0], chunk or (CUDA_CHUNK if hidden.is_cuda else array_api.TILE // 32))
    flat = hidden.reshape(-1, hidden.shape[-1]), head, bias, ids.reshape(-1), half.reshape(-1)
    log_probs, *_ = SelectedLogProbs.apply(*flat, (scale, soft_cap, chunk), kernels)  # type: ignore[no-untyped-call]
    return log_probs.reshape(ids.shape)


def _log_prob_and_residuals(
    hidden: Tensor, head: Tensor, ids: Tensor, half: Tensor, chunk: int, **logits: Any
) -> tuple[Tensor, Tensor, Tensor]:
    from credit.backends.torch import ops

    def rows(x: Tensor, ids: Tensor, half: Tensor) -> tuple[Tensor, ...]:
        tile = tiles.from_hidden(x, head, dtype=torch.float32, project=project, **logits)
        states = [
            ops.token_states(tile(start, width), None, ids, half, start, 1)
            for start, width in _split_vocabulary(head.shape[0], chunk)
        ]
        log_prob, _, peak, log_total = ops.merge_parts(torch.cat(states, 1), half, False)
        return log_prob.clone(), peak.clone(), log_total.clone()

    return tiles.map_rows(rows, (hidden, ids, half), 1, CUDA_ROWS)


def _grad_logits(
    x: Tensor, ids: Tensor, half: Tensor, peak: Tensor, log_total: Tensor, given: Tensor, *, kernels: bool
) -> Tensor:
    """given (1[v = a] - p) / T [rows, V'], for ids that count from the first column."""
    if kernels:
        from credit.backends.torch import ops

        none = torch.zeros_like(given)
        saved, both = torch.stack((none, none, peak, log_total)), torch.stack((given, none))
        return ops.grad_logits(x, ids, half, saved, both, 0, torch.float32)
    if cpu.is_on_cpu(x):
        none = torch.zeros_like(given)
        return cpu.grad_logits(x, ids, half, torch.stack((peak, log_total, none)), torch.stack((given, none)))
    weight = 2.0 * half * given
    log_p = 2.0 * half[:, None] * (x - peak[:, None]) - log_total[:, None]
    columns = torch.arange(x.shape[-1], device=ids.device)
    return weight[:, None] * ((columns == ids[:, None]).to(x.dtype) - log_p.exp())


def _split_vocabulary(size: int, chunk: int) -> list[tuple[int, int]]:
    return [(start, min(chunk, size - start)) for start in range(0, size, chunk)]


def _rows_per_chunk(chunk: int) -> int:
    return max(1, CUDA_ROWS * CUDA_CHUNK // chunk)


def _uses_tensor_cores(hidden: Tensor, head: Tensor) -> bool:
    low = hidden.dtype == head.dtype and hidden.dtype in (torch.bfloat16, torch.float16)
    return low and hidden.is_cuda
