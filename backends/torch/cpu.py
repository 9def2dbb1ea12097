# mypy: disable-error-code="no-untyped-call, untyped-decorator"
"""torch on a CPU: the blocks of `numpy/backend.py` on the tensors' own memory; 16 bits are widened by blocks.

As operators, so that torch.compile sees one node where it would unroll every fold.
"""

from collections.abc import Sequence
from math import e, log2
from typing import Any

import numpy as np
import torch

from credit.backends import array_api, limits
from credit.backends.numpy import backend as numpy_backend
from credit.backends.numpy import compiled, inplace
from credit.backends.torch.tensors import move_batch_axes
from credit.backends.vocab import by_name, state

Tensor = torch.Tensor


def sum_states(logits: Sequence[Tensor], ids: Tensor, half: Tensor, also: Sequence[str] = ()) -> Any:
    """As `state.sum_states`."""
    return state.unpack(pack_states(logits, ids, half, " ".join(also)).unbind(), also)


@torch.library.custom_op("credit::cpu_pack_states", mutates_args=(), device_types="cpu")
def pack_states(logits: Sequence[Tensor], ids: Tensor, half: Tensor, also: str = "") -> Tensor:
    """The packed state [4 or 5, ..., 1] of one model's logits [..., V], or [8 or more, ..., 1] of two.

    ids and half are [..., 1]; `also` has names with spaces between them.
    """
    return torch.from_numpy(np.stack(state.pack(_fold(tuple(logits), ids, half, also.split()))))


@torch.library.custom_op("credit::cpu_token_statistics", mutates_args=(), device_types="cpu")
def token_statistics(logits: Sequence[Tensor], ids: Tensor, half: Tensor, also: str = "") -> Tensor:
    """log p, log q, H, d and those of `also` [4 or more, ...] of the logits [..., V] of one model or two.

    half is 1 / 2T [...]; of one model log q and d are NaN.
    """
    names = also.split()
    with np.errstate(all="ignore"):
        whole = _fold(tuple(logits), ids[..., None], half[..., None], names)
        return torch.from_numpy(np.stack(array_api.read_statistics(whole, half.numpy()[..., None], names)))


@torch.library.custom_op("credit::cpu_log_probs_and_entropy", mutates_args=(), device_types="cpu")
def log_probs_and_entropy(x: Tensor, ids: Tensor, half: Tensor) -> Tensor:
    """log p, H, and the residuals peak and ln A [4, ...]."""
    halves = half.numpy()[..., None]
    with np.errstate(all="ignore"):
        policy, moment, _ = _fold((x,), ids[..., None], half[..., None])
        fields = state.log_prob(policy, halves), state.entropy(policy, moment)
        return torch.from_numpy(np.stack([*fields, policy.peak[..., 0], np.log(policy.total)[..., 0]]))


@torch.library.custom_op("credit::cpu_grad_logits", mutates_args=(), device_types="cpu")
def grad_logits(x: Tensor, ids: Tensor, half: Tensor, residuals: Tensor, grad_output: Tensor) -> Tensor:
    """The gradient in logits x; residuals [3, ...] are peak, ln A, H, grad_output [2, ...] of log p and H."""
    if x.ndim == 1:
        return _grad_logits(x[None], ids[None], half[None], residuals[:, None], grad_output[:, None])[0]
    return _grad_logits(x, ids, half, residuals, grad_output)


def _grad_logits(x: Tensor, ids: Tensor, half: Tensor, residuals: Tensor, grad_output: Tensor) -> Tensor:
    gradient = torch.empty_like(x, memory_format=torch.contiguous_format)
    if not x.numel():
        return gradient
    threads = 1 if x.numel() < limits.NUMPY_SINGLE_THREAD_ENTRIES else torch.get_num_threads()
    if is_compiled(x):
        arrays = [tensor.numpy() for tensor in (ids, half, residuals, grad_output)]
        compiled.write_grad_logits(_as_bits(x), _as_bits(gradient), threads, *arrays)
        return gradient
    side, out = (_as_array(tensor, half.dtype) for tensor in (x, gradient))
    tokens, halves, saved, grads = (t.numpy()[..., None] for t in (ids, half, residuals, grad_output))
    exponential = _choose_exponential(halves.dtype)

    def work(block: numpy_backend.Block, scratch: Any) -> None:
        rows, columns = block.shape
        wide = inplace.padded_width(columns)
        *buffers, spare = (buffer[: rows * wide].reshape(rows, wide) for buffer in scratch)
        # A view: blocks of several leading indices hold all columns of a gradient without gaps.
        direct = isinstance(out, np.ndarray)
        target = out[block.place].reshape(rows, columns) if direct else spare[:, :columns]
        local = tokens[block.tokens].reshape(-1) - block.columns.start
        hit = np.flatnonzero((local >= 0) & (local < columns))
        fields = (slice(None), *block.tokens)
        per_row = halves[block.tokens].reshape(-1, 1), saved[fields].reshape(3, -1, 1)
        upstream, hits = grads[fields].reshape(2, -1, 1), (hit, local[hit])
        logits = _read_block(side, block.place, spare[:, :columns])
        inplace.write_grad_logits(logits, *per_row, upstream, hits, target, buffers, exponential)
        if not direct:
            place = gradient[block.place]
            _copy(torch.from_numpy(target).reshape(place.shape), place)

    entries = limits.NUMPY_BLOCK_ENTRIES
    blocks = list(numpy_backend.split_blocks(tuple(ids.shape), x.shape[-1], entries, threads))
    numpy_backend.map_blocks(work, blocks, threads, (3, entries + limits.NUMPY_DOT_ENTRIES), halves.dtype)
    return gradient


@pack_states.register_fake
def _(logits: Sequence[Tensor], ids: Tensor, half: Tensor, also: str = "") -> Tensor:
    fields = state.FIELDS * len(logits) + len(by_name.stored(also.split()))
    return half.new_empty((fields, *ids.shape))


@token_statistics.register_fake
def _(logits: Sequence[Tensor], ids: Tensor, half: Tensor, also: str = "") -> Tensor:
    return half.new_empty((4 + len(also.split()), *ids.shape))


@log_probs_and_entropy.register_fake
def _(x: Tensor, ids: Tensor, half: Tensor) -> Tensor:
    return half.new_empty((4, *ids.shape))


@grad_logits.register_fake
def _(x: Tensor, ids: Tensor, half: Tensor, residuals: Tensor, grad_output: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.register_vmap("credit::cpu_pack_states")
def _(
    info: Any, axes: Any, logits: Sequence[Tensor], ids: Tensor, half: Tensor, also: str = ""
) -> tuple[Tensor, int]:
    sides = move_batch_axes(info, axes[0], logits)
    return pack_states(sides, *move_batch_axes(info, axes[1:3], (ids, half)), also), 1


@torch.library.register_vmap("credit::cpu_token_statistics")
def _(
    info: Any, axes: Any, logits: Sequence[Tensor], ids: Tensor, half: Tensor, also: str = ""
) -> tuple[Tensor, int]:
    sides = move_batch_axes(info, axes[0], logits)
    return token_statistics(sides, *move_batch_axes(info, axes[1:3], (ids, half)), also), 1


def _fold(logits: tuple[Tensor, ...], ids: Tensor, half: Tensor, also: Sequence[str] = ()) -> Any:
    """The state as numpy arrays; ids and half are [..., 1]."""
    selected = [state.select_logits(x, ids).to(half.dtype).numpy() for x in logits]
    halves, threads = half.numpy(), torch.get_num_threads()
    if is_compiled(*logits, also=also):
        return compiled.fold([_as_bits(x) for x in logits], selected, ids.numpy(), halves, threads)
    sides = tuple(_as_array(x, half.dtype) for x in logits)
    exponential = _choose_exponential(halves.dtype)
    return numpy_backend.fold_blocks(
        sides, _read_block, selected, ids.numpy(), halves, threads, also, exponential
    )


def is_compiled(*logits: Tensor, also: Sequence[str] = ()) -> bool:
    """As `compiled.takes`, of tensors."""
    kinds = {torch.float32: np.dtype(np.float32), torch.bfloat16: compiled.HALF}
    return compiled.takes(*(kinds.get(x.dtype) for x in logits), also=also)


def _as_bits(tensor: Tensor) -> Any:
    """The tensor's memory as the compiled path reads and writes it."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(compiled.HALF)
    return tensor.numpy()


def _choose_exponential(dtype: Any) -> inplace.Exponential:
    """torch's exp2, which has vectors everywhere, where numpy's has none."""
    chosen = inplace.choose_exponential(dtype)
    return chosen if chosen.function is np.exp2 else inplace.Exponential(_exp2, log2(e))


def _exp2(exponents: Any, out: Any) -> None:
    """2^exponents of a buffer without gaps, in pieces that torch leaves to the thread that calls it."""
    source, target = (torch.from_numpy(array).reshape(-1) for array in (exponents, out))
    for piece in zip(*(t.split(_count_serial(source)) for t in (source, target)), strict=True):
        torch.exp2(piece[0], out=piece[1])


def _copy(source: Tensor, target: Tensor) -> None:
    """Copies and converts, in pieces as above."""
    columns = target.shape[-1]
    step = max(1, _count_serial(target) * columns // target.numel())
    for start in range(0, columns, step):
        target[..., start : start + step].copy_(source[..., start : start + step])


def _count_serial(tensor: Tensor) -> int:
    """Entries of an operation on the tensor that torch does not share out among threads of its own."""
    return tensor.numel() if torch.get_num_threads() == 1 else limits.TORCH_SERIAL_ENTRIES


def _as_array(tensor: Tensor, dtype: torch.dtype) -> Any:
    """The tensor's memory as an array, or the tensor itself where numpy lacks the type or would convert."""
    return tensor.numpy() if tensor.dtype == dtype else tensor


def _read_block(logits: Any, place: tuple[Any, ...], out: Any) -> Any:
    if isinstance(logits, np.ndarray):
        return numpy_backend.read_block(logits, place, out)
    block = logits[place]
    _copy(block, torch.from_numpy(out).reshape(block.shape))
    return out
