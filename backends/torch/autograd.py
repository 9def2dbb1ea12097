"""torch: log p and H of logits with their gradient, by kernels, numpy's blocks or the reference's folds."""

from typing import Any

import torch

from credit.backends import array_api, limits
from credit.backends.torch import cpu, paths
from credit.backends.torch.derivatives import apply_function, refuse_second_derivative
from credit.backends.torch.tensors import move_batch_axes
from credit.backends.vocab import gradients, loop, state, tiles

Tensor = torch.Tensor


def log_probs_and_entropy(logits: Tensor, ids: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """log p and H [...] of logits [..., V]; half is 1 / 2T [...]."""
    log_probs, entropy, *_ = apply_function(_LogProbsAndEntropy, logits, ids, half)
    return log_probs, entropy


def grad_logits(
    logits: Tensor,
    ids: Tensor,
    half: Tensor,
    residuals: tuple[Tensor, Tensor, Tensor],
    grad_log_prob: Tensor,
    grad_entropy: Tensor,
) -> Tensor:
    """The gradient of log p and H in logits [..., V]; the residuals are peak, ln A and H [...]."""
    arrays = logits, ids, half, *residuals, grad_log_prob, grad_entropy
    return apply_function(_GradLogits, *arrays)


class _LogProbsAndEntropy(torch.autograd.Function):
    """Only the logits and four numbers per token are kept for the gradient."""

    @staticmethod
    def forward(logits: Tensor, ids: Tensor, half: Tensor) -> tuple[Tensor, ...]:
        if paths.uses_kernels(logits):
            return tuple(paths.import_ops().log_probs_and_entropy(logits, ids, half))
        if paths.is_on_cpu(logits, ids, half):
            return tuple(cpu.log_probs_and_entropy(logits, ids, half))

        def rows(x: Tensor, ids: Tensor, half: Tensor) -> tuple[Tensor, ...]:
            ids, half = ids[..., None], half[..., None]
            chunk = limits.REFERENCE_CHUNK_ENTRIES
            policy, moment, _ = array_api.fold_single(x, half.dtype, chunk, ids, half)
            log_prob, entropy = state.log_prob(policy, half), state.entropy(policy, moment)
            return log_prob, entropy, policy.peak[..., 0], policy.total.log()[..., 0]

        return tiles.map_rows(rows, (logits, ids, half), ids.ndim, _rows_per_fold(logits))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        _, entropy, peak, log_total = output
        ctx.mark_non_differentiable(peak, log_total)
        ctx.save_for_backward(*inputs, peak, log_total, entropy)

    @staticmethod
    def backward(
        ctx: Any, grad_log_prob: Tensor, grad_entropy: Tensor, *_: Tensor
    ) -> tuple[Tensor, None, None]:
        logits, ids, half, *residuals = ctx.saved_tensors
        return grad_logits(logits, ids, half, residuals, grad_log_prob, grad_entropy), None, None

    @staticmethod
    def vmap(info: Any, axes: tuple[int | None, ...], *arrays: Tensor) -> Any:
        outputs = apply_function(_LogProbsAndEntropy, *move_batch_axes(info, axes, arrays))
        return outputs, (0,) * len(outputs)


class _GradLogits(torch.autograd.Function):
    """The backward pass as a function of its own: vmap hands it whole arrays to write into.

    Its own derivative is refused, and would otherwise be missing without a word.
    """

    @staticmethod
    def forward(
        logits: Tensor,
        ids: Tensor,
        half: Tensor,
        peak: Tensor,
        log_total: Tensor,
        entropy: Tensor,
        grad_log_prob: Tensor,
        grad_entropy: Tensor,
    ) -> Tensor:
        grad_output = grad_log_prob, grad_entropy
        if paths.uses_kernels(logits):
            # In the order in which the kernel stores them; the first, log p, is not read.
            residuals = torch.stack((entropy, entropy, peak, log_total))
            arrays = logits, ids, half, residuals, torch.stack(grad_output)
            return paths.import_ops().grad_logits(*arrays, 0, logits.dtype)
        if paths.is_on_cpu(logits):
            residuals = torch.stack((peak, log_total, entropy))
            return cpu.grad_logits(logits, ids, half, residuals, torch.stack(grad_output))
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        per_token = ids, half, peak, log_total, entropy, *grad_output
        limit = _rows_per_fold(logits)
        tiles.map_rows(_write_grad_logits, (gradient, logits, *per_token), logits.ndim - 1, limit)
        return gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Nothing is kept: there is no second derivative."""

    backward = staticmethod(refuse_second_derivative)

    @staticmethod
    def vmap(info: Any, axes: tuple[int | None, ...], *arrays: Tensor) -> Any:
        return apply_function(_GradLogits, *move_batch_axes(info, axes, arrays)), 0


def _rows_per_fold(logits: Tensor) -> int:
    chunk = min(logits.shape[-1], limits.REFERENCE_CHUNK_ENTRIES)
    return max(1, paths.tile_entries(logits, limits.REFERENCE_TILE_ENTRIES) // chunk)


def _write_grad_logits(gradient: Tensor, logits: Tensor, *per_token: Tensor) -> tuple[()]:
    ids, half, peak, log_total, entropy, grad_log_prob, grad_entropy = (t[..., None] for t in per_token)
    residuals, grad_output = (peak, log_total, entropy), (grad_log_prob, -grad_log_prob, grad_entropy)
    for start, width in loop.split_vocabulary(logits.shape[-1], limits.REFERENCE_CHUNK_ENTRIES):
        part = slice(start, start + width)
        x = logits[..., part].to(half.dtype)
        gradient[..., part] = gradients.grad_logits(x, ids - start, half, residuals, *grad_output)
    return ()
