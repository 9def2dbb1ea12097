# mypy: disable-error-code="no-untyped-call, untyped-decorator"
"""The kernels as torch operators, which torch.compile, autocast, vmap, meta tensors and autograd know."""

from collections.abc import Sequence
from typing import Any

import torch

from credit.backends.torch import gradient_kernel, kernels, postprocess_kernel
from credit.backends.torch.derivatives import refuse_second_derivative
from credit.backends.torch.tensors import move_batch_axes

Tensor = torch.Tensor


@torch.library.custom_op("credit::token_statistics", mutates_args=())
def token_statistics(logits: Sequence[Tensor], ids: Tensor, half: Tensor, also: str = "") -> Tensor:
    """log p, log q, H, d and those of `also` [4 or more, ...] of the logits [..., V] of one model or two.

    half is 1 / 2T [...]; of one model log q and d are NaN. `also` has, here and below, names that are fields
    of a state, with spaces between them.
    """
    x, y = logits[0], logits[1] if len(logits) == 2 else None
    with torch.cuda.device_of(x):  # Triton launches on the current device
        return order_statistics(kernels.statistics(x, y, ids, half, also=also.split()), len(logits))


def order_statistics(found: Tensor, models: int) -> Tensor:
    """What the kernels give for so many models as log p, log q, H, d, and what is asked for."""
    if models == 1:  # log p, H, peak and ln A
        found[2], found[1], found[3] = found[1].clone(), float("nan"), float("nan")
    return found


@torch.library.custom_op("credit::log_probs_and_entropy", mutates_args=())
def log_probs_and_entropy(x: Tensor, ids: Tensor, half: Tensor) -> Tensor:
    """log p, H, and the residuals peak and ln A [4, ...]."""
    with torch.cuda.device_of(x):
        return kernels.statistics(x, None, ids, half)


@torch.library.custom_op("credit::grad_logits", mutates_args=())
def grad_logits(
    x: Tensor,
    ids: Tensor,
    half: Tensor,
    residuals: Tensor,
    grad_output: Tensor,
    start: int,
    dtype: torch.dtype,
    bias: Tensor | None = None,
    scale: float = 1.0,
    soft_cap: float | None = None,
) -> Tensor:
    """The gradient in x [..., V'], whose first column has id `start`; see `gradient_kernel`."""
    with torch.cuda.device_of(x):
        return gradient_kernel.grad_logits(
            x, ids, half, residuals, grad_output, start, dtype, bias=bias, scale=scale, soft_cap=soft_cap
        )


@torch.library.custom_op("credit::token_states", mutates_args=())
def token_states(
    x: Tensor,
    y: Tensor | None,
    ids: Tensor,
    half: Tensor,
    start: int,
    parts: int,
    also: str = "",
    x_bias: Tensor | None = None,
    y_bias: Tensor | None = None,
    scale: float = 1.0,
    soft_cap: float | None = None,
) -> Tensor:
    """The states [rows, parts, 8 or more] of a part of the vocabulary, of one model or two; see `fold`."""
    head: Any = {"x_bias": x_bias, "y_bias": y_bias, "scale": scale, "soft_cap": soft_cap}
    with torch.cuda.device_of(x):
        return kernels.fold(x, y, ids, half, start, parts, also=also.split(), **head)


@torch.library.custom_op("credit::merge_parts", mutates_args=())
def merge_parts(states: Tensor, half: Tensor, pair: bool, also: str = "") -> Tensor:
    """The statistics [4 or more, rows] from states [rows, parts, 8 or more]."""
    with torch.cuda.device_of(states):
        return kernels.merge_parts(states, half, pair=pair, also=also.split())


@torch.library.custom_op("credit::postprocess", mutates_args=())
def postprocess(
    log_p: Tensor, log_q: Tensor, entropy: Tensor, deviation: Tensor, ids: Tensor, size: int, masked: bool
) -> Tensor:
    """As `array_api.postprocess` [4, ...]; if `masked`, tokens with the id UNREAD get 0."""
    with torch.cuda.device_of(log_p):
        return postprocess_kernel.postprocess((log_p, log_q, entropy, deviation), ids, size, masked)


@postprocess.register_fake
def _(
    log_p: Tensor, log_q: Tensor, entropy: Tensor, deviation: Tensor, ids: Tensor, size: int, masked: bool
) -> Tensor:
    return log_p.new_empty((4, *ids.shape))


@token_statistics.register_fake
def _(logits: Sequence[Tensor], ids: Tensor, half: Tensor, also: str = "") -> Tensor:
    return half.new_empty((4 + len(also.split()), *ids.shape), dtype=torch.float32)


@log_probs_and_entropy.register_fake
def _(x: Tensor, ids: Tensor, half: Tensor) -> Tensor:
    return half.new_empty((4, *ids.shape), dtype=torch.float32)


@grad_logits.register_fake
def _(
    x: Tensor,
    ids: Tensor,
    half: Tensor,
    residuals: Tensor,
    grad_output: Tensor,
    start: int,
    dtype: torch.dtype,
    bias: Tensor | None = None,
    scale: float = 1.0,
    soft_cap: float | None = None,
) -> Tensor:
    return x.new_empty(x.shape, dtype=dtype)


@token_states.register_fake
def _(
    x: Tensor,
    y: Tensor | None,
    ids: Tensor,
    half: Tensor,
    start: int,
    parts: int,
    also: str = "",
    x_bias: Tensor | None = None,
    y_bias: Tensor | None = None,
    scale: float = 1.0,
    soft_cap: float | None = None,
) -> Tensor:
    fields = kernels.FIELDS + len(also.split())
    return half.new_empty((ids.numel(), parts, fields), dtype=torch.float32)


@merge_parts.register_fake
def _(states: Tensor, half: Tensor, pair: bool, also: str = "") -> Tensor:
    return half.new_empty((4 + len(also.split()), states.shape[0]), dtype=torch.float32)


def _save_for_backward(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
    x, *rest = ctx.saved_tensors
    return grad_logits(x, *rest, grad_output, 0, x.dtype), None, None


log_probs_and_entropy.register_autograd(_backward, setup_context=_save_for_backward)
grad_logits.register_autograd(refuse_second_derivative)


@torch.library.register_vmap("credit::token_statistics")
def _(
    info: Any, axes: Any, logits: Sequence[Tensor], ids: Tensor, half: Tensor, also: str = ""
) -> tuple[Tensor, int]:
    sides = move_batch_axes(info, axes[0], logits)
    return token_statistics(sides, *move_batch_axes(info, axes[1:3], (ids, half)), also), 1


@torch.library.register_vmap("credit::postprocess")
def _(info: Any, axes: tuple[int | None, ...], *arguments: Any) -> tuple[Tensor, int]:
    return postprocess(*move_batch_axes(info, axes[:5], arguments[:5]), *arguments[5:]), 1
