"""log p of a linear head on torch with its gradient, tile by tile and no further than is needed."""

from typing import Any, NamedTuple

import torch

from credit.backends import array_api, limits
from credit.backends.torch import cpu, head_tiles, paths
from credit.backends.torch.derivatives import apply_function, refuse_second_derivative
from credit.backends.vocab import gradients, loop, state
from credit.backends.vocab.sources import LinearHead

Tensor = torch.Tensor


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
            states = head_tiles.fold_by_kernels([source], ids, half, chunk)
            log_prob, _, peak, log_total = paths.import_ops().merge_parts(states, half, False)
            return log_prob.clone(), peak.clone(), log_total.clone()
        return array_api.log_prob_and_residuals_from_hidden(
            source,
            ids,
            half,
            chunk=chunk,
            tile=chunk * limits.CUDA_HEAD_ROWS,
            make_tiles=head_tiles.make_tiles,
            sum_states=cpu.sum_states if paths.is_on_cpu(hidden) else state.sum_states,
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
        needed = tuple(ctx.needs_input_grad[:3])  # a frozen head, as of LoRA, needs none
        return *apply_function(_GradSelectedLogProbs, *arrays, *ctx.settings, needed), *[None] * 6


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
        needed: tuple[bool, bool, bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients of hidden, head and bias that are needed; a tile is made once for all of them."""
        grads = _Gradients(
            torch.zeros(hidden.shape, dtype=half.dtype, device=hidden.device) if needed[0] else None,
            torch.empty_like(head) if needed[1] else None,
            torch.empty_like(bias) if bias is not None and needed[2] else None,
        )
        per_row = torch.stack((peak, log_total, torch.zeros_like(peak))), grad_output
        source = LinearHead(hidden, head, bias, scale, soft_cap)
        for start, width in loop.split_vocabulary(head.shape[0], chunk):
            part = slice(start, start + width)
            entries = head_tiles.take_entries(source, part, half.dtype)
            _add_gradients(entries, ids - start, half, per_row, kernels, grads, part)
        return None if grads.hidden is None else grads.hidden.to(hidden.dtype), grads.head, grads.bias

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        """Nothing is kept: there is no second derivative."""

    backward = staticmethod(refuse_second_derivative)


class _Gradients(NamedTuple):
    """The gradients of the whole hidden states, head and bias; None where one is not needed."""

    hidden: Tensor | None  # [N, D], a sum over parts of the vocabulary, in the computing dtype
    head: Tensor | None  # [V, D]
    bias: Tensor | None  # [V]


def _add_gradients(
    source: LinearHead,
    ids: Tensor,
    half: Tensor,
    per_row: tuple[Tensor, Tensor],
    kernels: bool,
    grads: _Gradients,
    part: slice,
) -> None:
    """Adds what a part of the vocabulary contributes, whose rows of the head and bias the source has.

    The ids count from its first entry; per row there are the residuals [3, N] and the gradient in log p [N].
    """
    hidden, weight, *_ = source
    residuals, grad_output = per_row
    grad_weight = half.new_zeros(weight.shape if grads.head is not None else 0)
    grad_offset = half.new_zeros(len(weight) if grads.bias is not None else 0)
    for block in range(0, hidden.shape[0], limits.CUDA_HEAD_ROWS):
        rows = slice(block, block + limits.CUDA_HEAD_ROWS)
        tile = source._replace(hidden=hidden[rows])
        slope = _grad_product(tile, ids[rows], half[rows], residuals[:, rows], grad_output[rows], kernels)
        if grads.hidden is not None:
            grads.hidden[rows] += head_tiles.project(slope, weight.t(), half.dtype)
        if grads.head is not None:
            grad_weight += head_tiles.project(slope.t(), hidden[rows].t(), half.dtype)
        if grads.bias is not None:
            grad_offset += slope.sum(0, dtype=half.dtype)
        del slope  # before the next tile is made
    if grads.head is not None:
        grads.head[part] = grad_weight
    if grads.bias is not None:
        grads.bias[part] = grad_offset


def _grad_product(
    source: LinearHead, ids: Tensor, half: Tensor, residuals: Tensor, grad_output: Tensor, kernels: bool
) -> Tensor:
    """The gradient of log p in hidden head^T + bias [rows, W], in the dtype that is multiplied by next."""
    hidden, head, bias, scale, soft_cap = source
    if kernels:
        none = torch.zeros_like(grad_output)
        saved, both = torch.stack((none, none, *residuals[:2])), torch.stack((grad_output, none))
        dtype = head.dtype if head_tiles.uses_tensor_cores(hidden, head) else half.dtype
        product = head_tiles.project(hidden, head, half.dtype)
        return paths.import_ops().grad_logits(
            product, ids, half, saved, both, 0, dtype, bias, scale, soft_cap
        )
    logits = head_tiles.make_tiles(source, half.dtype)(0, source.columns)
    grad = _grad_logits(logits, ids, half, residuals, grad_output * scale)
    if soft_cap is not None:
        grad *= logits.div_(soft_cap).square_().neg_().add_(1.0)
    return grad


def _grad_logits(x: Tensor, ids: Tensor, half: Tensor, residuals: Tensor, grad_output: Tensor) -> Tensor:
    """The gradient of log p in the logits [rows, W], for ids that count from the first column."""
    if paths.is_on_cpu(x):
        return cpu.grad_logits(
            x, ids, half, residuals, torch.stack((grad_output, torch.zeros_like(grad_output)))
        )
    peak, log_total, _ = residuals
    per_row = (tensor[:, None] for tensor in (ids, half, peak, log_total, grad_output))
    return gradients.grad_log_prob(x, *per_row)
