"""torch: kernels on CUDA (ops.py); elsewhere the reference's folds, and log-probs with their gradient."""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from credit.backends import array_api
from credit.backends.torch import cpu, linear_head
from credit.backends.vocab import state, tiles

Tensor = torch.Tensor
ACCELERATOR_TILE = 2**26  # entries per fold off the CPU, where launches cost more than memory


def uses_kernels(*logits: Tensor) -> bool:
    """Whether the Triton kernels take these: CUDA tensors, unless all are float64."""
    return logits[0].is_cuda and tiles.computing_dtype(*logits) == torch.float32


def token_statistics(
    policy_logits: Tensor, reference_logits: Tensor, token_ids: Tensor, temperature: Tensor | float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `array_api.token_statistics`; no gradient."""
    with torch.no_grad():
        if uses_kernels(policy_logits, reference_logits):
            half = tiles.half_inverse_temperature(temperature, token_ids, torch.float32)
            return tuple(_import_ops().token_statistics(policy_logits, reference_logits, token_ids, half))
        if cpu.is_on_cpu(policy_logits, reference_logits, token_ids):
            half = tiles.half_inverse_temperature(
                temperature, token_ids, tiles.computing_dtype(policy_logits, reference_logits)
            )
            return tuple(cpu.token_statistics(policy_logits, reference_logits, token_ids, half))
        return array_api.token_statistics(
            policy_logits,
            reference_logits,
            token_ids,
            temperature,
            tile=_tile_entries(policy_logits, array_api.TILE),
        )


def token_statistics_from_hidden(
    policy_hidden: Tensor,
    policy_head: Tensor,
    reference_hidden: Tensor,
    reference_head: Tensor,
    token_ids: Tensor,
    temperature: Tensor | float,
    **settings: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `array_api.token_statistics_from_hidden`; no gradient, and autocast does not reach it."""
    with torch.no_grad(), torch.autocast(policy_hidden.device.type, enabled=False):
        if uses_kernels(policy_hidden, policy_head, reference_hidden, reference_head):
            _import_ops()
            policy = policy_hidden, policy_head, settings.pop("policy_bias")
            reference = reference_hidden, reference_head, settings.pop("reference_bias")
            half = tiles.half_inverse_temperature(temperature, token_ids, torch.float32)
            return linear_head.token_statistics(policy, reference, token_ids, half, **settings)
        return array_api.token_statistics_from_hidden(
            policy_hidden,
            policy_head,
            reference_hidden,
            reference_head,
            token_ids,
            temperature,
            tile=_tile_entries(policy_hidden, 16 * array_api.TILE),
            project=linear_head.project,
            pair=cpu.pair_state if cpu.is_on_cpu(policy_hidden) else state.pair_state,
            **settings,
        )


def postprocess(
    statistics: tuple[Tensor, ...], ids: Tensor, chosen: Tensor | None, size: int
) -> tuple[Tensor, ...]:
    """See `array_api.postprocess`; one launch on a GPU, where for few tokens a dozen would count."""
    with torch.no_grad():
        if uses_kernels(*statistics):
            return tuple(_import_ops().finish(*statistics, ids, size, chosen is not None))
        return array_api.postprocess(statistics, ids, chosen, size)


def log_probs_and_entropy(
    logits: Tensor, token_ids: Tensor, temperature: Tensor | float
) -> tuple[Tensor, Tensor]:
    """See `array_api.log_probs_and_entropy`; differentiable in the logits, which alone are kept."""
    half = tiles.half_inverse_temperature(temperature, token_ids, tiles.computing_dtype(logits))
    log_probs, entropy, *_ = _LogProbsAndEntropy.apply(logits, token_ids, half)  # type: ignore[no-untyped-call]
    return log_probs, entropy


def selected_log_probs_from_hidden(
    states: Tensor,
    head: Tensor,
    token_ids: Tensor,
    temperature: Tensor | float,
    *,
    bias: Tensor | None,
    scale: float,
    soft_cap: float | None,
    chunk: int | None,
) -> Tensor:
    """See `array_api.selected_log_probs_from_hidden`; differentiable, and autocast does not reach it."""
    half = tiles.half_inverse_temperature(temperature, token_ids, tiles.computing_dtype(states, head))
    kernels = uses_kernels(states, head) and _import_ops() is not None
    with torch.autocast(states.device.type, enabled=False):
        settings = scale, soft_cap, chunk
        return linear_head.selected_log_probs(states, head, bias, token_ids, half, settings, kernels)


def sharded_token_statistics(*arguments: Any) -> Any:
    """See `sharded.token_statistics`; torch.distributed is imported only here."""
    from credit.backends.torch import sharded

    return sharded.token_statistics(*arguments)


def sharded_log_probs_and_entropy(*arguments: Any) -> Any:
    """See `sharded.log_probs_and_entropy`."""
    from credit.backends.torch import sharded

    return sharded.log_probs_and_entropy(*arguments)


class _LogProbsAndEntropy(torch.autograd.Function):
    """d log p(a) / dx_v = (1[v = a] - p_v) / T and dH / dx_v = -p_v (ln p_v + H) / T, from saved sums."""

    @staticmethod
    def forward(logits: Tensor, ids: Tensor, half: Tensor) -> tuple[Tensor, ...]:
        if uses_kernels(logits):
            return tuple(_import_ops().log_probs_and_entropy(logits, ids, half))
        if cpu.is_on_cpu(logits, ids, half):
            return tuple(cpu.log_probs_and_entropy(logits, ids, half))

        def rows(x: Tensor, ids: Tensor, half: Tensor) -> tuple[Tensor, ...]:
            ids, half = ids[..., None], half[..., None]
            policy, moment = array_api.fold_single(x, half.dtype, array_api.CHUNK, ids, half)
            log_prob, entropy = state.log_prob(policy, half), state.entropy(policy, moment)
            return log_prob, entropy, policy.peak[..., 0], policy.total.log()[..., 0]

        return tiles.map_rows(rows, (logits, ids, half), ids.ndim, _rows_per_fold(logits))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        _, entropy, peak, log_total = output
        ctx.mark_non_differentiable(peak, log_total)
        ctx.save_for_backward(*inputs, peak, log_total, entropy)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_log_prob: Tensor, of_entropy: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        arrays = (*ctx.saved_tensors, of_log_prob, of_entropy)
        return _GradLogits.apply(*arrays), None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, axes: tuple[int | None, ...], *arrays: Tensor) -> Any:
        outputs = _LogProbsAndEntropy.apply(*_move_batch_axes(info, axes, arrays))  # type: ignore[no-untyped-call]
        return outputs, (0,) * len(outputs)


class _GradLogits(torch.autograd.Function):
    """The backward pass as a function of its own, so that vmap hands it whole arrays to write into."""

    @staticmethod
    def forward(
        logits: Tensor,
        ids: Tensor,
        half: Tensor,
        peak: Tensor,
        log_total: Tensor,
        entropy: Tensor,
        of_log_prob: Tensor,
        of_entropy: Tensor,
    ) -> Tensor:
        if uses_kernels(logits):
            saved = torch.stack((entropy, entropy, peak, log_total))  # the first is not read
            given = torch.stack((of_log_prob, of_entropy))
            return _import_ops().slope(logits, ids, half, saved, given, 0, logits.dtype)
        if cpu.is_on_cpu(logits):
            saved, given = torch.stack((peak, log_total, entropy)), torch.stack((of_log_prob, of_entropy))
            return cpu.grad_logits(logits, ids, half, saved, given)
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        arrays = (gradient, logits, ids, half, peak, log_total, entropy, of_log_prob, of_entropy)
        tiles.map_rows(_write_grad_logits, arrays, logits.ndim - 1, _rows_per_fold(logits))
        return gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Nothing is kept: there is no second derivative."""

    @staticmethod
    def vmap(info: Any, axes: tuple[int | None, ...], *arrays: Tensor) -> Any:
        return _GradLogits.apply(*_move_batch_axes(info, axes, arrays)), 0  # type: ignore[no-untyped-call]


def grad_logits(logits: Tensor, *per_token: Tensor) -> Tensor:
    """In logits, from ids, half, peak, ln A and H, and the gradients of log p and H."""
    return _GradLogits.apply(logits, *per_token)  # type: ignore[no-untyped-call]


def _move_batch_axes(info: Any, axes: tuple[int | None, ...], arrays: tuple[Tensor, ...]) -> list[Tensor]:
    """The batch as one more axis of rows, for vmap."""
    return [
        array.expand(info.batch_size, *array.shape) if axis is None else array.movedim(axis, 0)
        for array, axis in zip(arrays, axes, strict=True)
    ]


def _import_ops() -> Any:
    try:
        from credit.backends.torch import ops
    except ImportError as error:
        raise ImportError(
            f"the kernels for CUDA tensors need Triton, which cannot be imported ({error}); "
            "CREDIT_BACKEND=array_api computes without it, slowly"
        ) from error
    return ops


def _rows_per_fold(logits: Tensor) -> int:
    return max(1, _tile_entries(logits, array_api.TILE) // min(logits.shape[-1], array_api.CHUNK))


def _write_grad_logits(gradient: Tensor, logits: Tensor, *per_token: Tensor) -> tuple[()]:
    ids, half, peak, log_total, entropy, of_log_prob, of_entropy = (t[..., None] for t in per_token)
    size = logits.shape[-1]
    for start in range(0, size, array_api.CHUNK):
        part = slice(start, min(size, start + array_api.CHUNK))
        log_p = 2.0 * half * (logits[..., part].to(half.dtype) - peak) - log_total
        p = log_p.exp()
        # p ln p is 0 where p is.
        entropy_slope = p * (torch.where(p > 0.0, log_p, 0.0) + entropy)
        columns = torch.arange(part.start, part.stop, device=ids.device)
        slope = of_log_prob * ((columns == ids).to(p.dtype) - p) - of_entropy * entropy_slope
        gradient[..., part] = 2.0 * half * slope
    return ()


def _tile_entries(tensor: Tensor, on_cpu: int) -> int:
    return on_cpu if tensor.device.type == "cpu" else ACCELERATOR_TILE
