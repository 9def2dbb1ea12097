"""From hidden states on torch: tiles of logits by the vendor's matmul, folded by the kernels on a GPU."""

from collections.abc import Sequence
from typing import Any

import torch

from credit.backends import array_api, limits
from credit.backends.torch import cpu, paths
from credit.backends.torch.derivatives import apply_function, refuse_second_derivative
from credit.backends.vocab import by_name, loop, state, tiles
from credit.backends.vocab.sources import LinearHead

Tensor = torch.Tensor


def project(hidden: Tensor, head: Tensor, dtype: torch.dtype) -> Tensor:
    """hidden [..., D] times head [W, D] in `dtype`; tensor cores take 16-bit inputs and sum in float32."""
    if not _uses_tensor_cores(hidden, head):
        return tiles.project(hidden, head, dtype)
    flat = torch.mm(hidden.reshape(-1, hidden.shape[-1]), head.t(), out_dtype=dtype)
    return flat.reshape(*hidden.shape[:-1], head.shape[0])


def token_statistics(
    policy: LinearHead,
    reference: LinearHead,
    token_ids: Tensor,
    half: Tensor,
    chunk: int | None,
    also: Sequence[str],
) -> tuple[Tensor, ...]:
    """log p, log q, H, d and those of `also` [...], folded by the kernels; half is 1 / 2T [...]."""
    ops = paths.import_ops()
    size, names = policy.columns, " ".join(by_name.stored(also))
    chunk = min(size, chunk or limits.CUDA_HEAD_CHUNK_ENTRIES)

    def rows(x: Tensor, y: Tensor, ids: Tensor, half: Tensor) -> tuple[Tensor, ...]:
        sides = _tile(policy._replace(hidden=x)), _tile(reference._replace(hidden=y))
        states = [
            ops.token_states(*(side(start, width) for side in sides), ids, half, start, 1, names)
            for start, width in loop.split_vocabulary(size, chunk)
        ]
        merged = ops.merge_parts(torch.cat(states, 1), half, True, names)
        return tuple(merged.reshape(len(merged), *ids.shape))

    arrays = (policy.hidden, reference.hidden, token_ids, half)
    limit = max(1, limits.CUDA_HEAD_ROWS * limits.CUDA_HEAD_CHUNK_ENTRIES // chunk)
    return by_name.complete(also, tiles.map_rows(rows, arrays, token_ids.ndim, limit))


def selected_log_probs(source: LinearHead, ids: Tensor, half: Tensor, chunk: int | None) -> Tensor:
    """log p [...] of hidden states [..., D], differentiable in hidden, head and bias."""
    hidden, head, bias, scale, soft_cap = source
    kernels = paths.uses_kernels(hidden, head) and paths.import_ops() is not None
    default = limits.CUDA_HEAD_CHUNK_ENTRIES if hidden.is_cuda else limits.CPU_HEAD_CHUNK_ENTRIES
    chunk = min(head.shape[0], chunk or default)
    flat = hidden.reshape(-1, hidden.shape[-1]), head, bias, ids.reshape(-1), half.reshape(-1)
    log_probs, *_ = apply_function(_SelectedLogProbs, *flat, scale, soft_cap, chunk, kernels)
    return log_probs.reshape(ids.shape)


class _SelectedLogProbs(torch.autograd.Function):
    """log p [N] of hidden [N, D] and head [V, D]; the logits' tiles are made again for the gradient."""

    @staticmethod
    def forward(
        hidden: Tensor,
        head: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        half: Tensor,
        scale: float,
        soft_cap: float | None,
        chunk: int,
        kernels: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        source = LinearHead(hidden, head, bias, scale, soft_cap)
        if kernels:
            return _log_prob_and_residuals(source, ids, half, chunk)
        return array_api.log_prob_and_residuals_from_hidden(
            source,
            ids,
            half,
            chunk=chunk,
            tile=chunk * limits.CUDA_HEAD_ROWS,
            project=project,
            single=cpu.single_state if paths.is_on_cpu(hidden) else state.single_state,
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, scale, soft_cap, chunk, kernels = inputs
        ctx.settings = scale, soft_cap, chunk, kernels
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*tensors, *output[1:])

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        arrays = *ctx.saved_tensors, grad_output
        return *apply_function(_GradSelectedLogProbs, *arrays, *ctx.settings), *[None] * 6


class _GradSelectedLogProbs(torch.autograd.Function):
    """The backward pass as a function of its own, so that its derivative is refused rather than missing."""

    @staticmethod
    def forward(
        hidden: Tensor,
        head: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        half: Tensor,
        peak: Tensor,
        log_total: Tensor,
        grad_output: Tensor,
        scale: float,
        soft_cap: float | None,
        chunk: int,
        kernels: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        grad_hidden = torch.zeros(hidden.shape, dtype=half.dtype, device=hidden.device)
        grad_head, grad_bias = torch.empty_like(head), None if bias is None else torch.empty_like(bias)
        for start, width in loop.split_vocabulary(head.shape[0], chunk):
            part = slice(start, start + width)
            weight, offset = head[part], None if bias is None else bias[part]
            grad_weight = torch.zeros(weight.shape, dtype=half.dtype, device=head.device)
            grad_offset = half.new_zeros(width)
            for block in range(0, hidden.shape[0], limits.CUDA_HEAD_ROWS):
                rows = slice(block, block + limits.CUDA_HEAD_ROWS)
                source = LinearHead(hidden[rows], weight, offset, scale, soft_cap)
                per_token = [t[rows] for t in (ids - start, half, peak, log_total, grad_output)]
                grad = _grad_projection(source, *per_token, kernels=kernels)
                grad_offset += grad.sum(0)
                low = grad.to(head.dtype) if _uses_tensor_cores(hidden, head) else grad
                grad_hidden[rows] += project(low, weight.t(), half.dtype)
                grad_weight += project(low.t(), hidden[rows].t(), half.dtype)
            grad_head[part] = grad_weight
            if grad_bias is not None:
                grad_bias[part] = grad_offset
        return grad_hidden.to(hidden.dtype), grad_head, grad_bias

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        """Nothing is kept: there is no second derivative."""

    backward = staticmethod(refuse_second_derivative)


def _log_prob_and_residuals(
    source: LinearHead, ids: Tensor, half: Tensor, chunk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """log p, peak and ln A [N], folded by the kernels."""
    ops = paths.import_ops()

    def rows(x: Tensor, ids: Tensor, half: Tensor) -> tuple[Tensor, ...]:
        tile = _tile(source._replace(hidden=x))
        states = [
            ops.token_states(tile(start, width), None, ids, half, start, 1)
            for start, width in loop.split_vocabulary(source.columns, chunk)
        ]
        log_prob, _, peak, log_total = ops.merge_parts(torch.cat(states, 1), half, False)
        return log_prob.clone(), peak.clone(), log_total.clone()

    return tiles.map_rows(rows, (source.hidden, ids, half), 1, limits.CUDA_HEAD_ROWS)


def _grad_projection(source: LinearHead, ids: Tensor, half: Tensor, *rest: Tensor, kernels: bool) -> Tensor:
    """The gradient of log p in hidden head^T + bias [rows, W]: back through soft cap and scale."""
    logits = tiles.from_source(source, half.dtype, project=project)(0, source.columns)
    grad = _grad_logits(logits, ids, half, *rest, kernels=kernels)
    if source.soft_cap is not None:
        grad *= 1.0 - (logits / source.soft_cap) ** 2
    grad *= source.scale
    return grad


def _grad_logits(
    x: Tensor,
    ids: Tensor,
    half: Tensor,
    peak: Tensor,
    log_total: Tensor,
    grad_output: Tensor,
    *,
    kernels: bool,
) -> Tensor:
    """The gradient of log p in logits [rows, W], for ids that count from the first column."""
    if kernels or paths.is_on_cpu(x):
        none = torch.zeros_like(grad_output)
        both = torch.stack((grad_output, none))
        if kernels:
            residuals = torch.stack((none, none, peak, log_total))
            return paths.import_ops().grad_logits(x, ids, half, residuals, both, 0, torch.float32)
        return cpu.grad_logits(x, ids, half, torch.stack((peak, log_total, none)), both)
    per_row = (tensor[:, None] for tensor in (ids, half, peak, log_total, grad_output))
    return state.grad_log_prob(x, *per_row)


def _tile(source: LinearHead) -> tiles.Tile:
    return tiles.from_source(source, torch.float32, project=project)


def _uses_tensor_cores(hidden: Tensor, head: Tensor) -> bool:
    low = hidden.dtype == head.dtype and hidden.dtype in (torch.bfloat16, torch.float16)
    return low and hidden.is_cuda
