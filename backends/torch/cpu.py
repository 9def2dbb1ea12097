# mypy: disable-error-code="no-untyped-call, untyped-decorator"
"""torch on a CPU: the blocks of `numpy/backend.py` on the tensors' own memory; 16 bits are widened by blocks.

As operators, so that torch.compile sees one node where it would unroll every fold.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from credit.backends import array_api
from credit.backends.numpy import backend as numpy_backend
from credit.backends.numpy import inplace
from credit.backends.vocab import state

Tensor = torch.Tensor


def is_on_cpu(*tensors: Tensor) -> bool:
    """Whether these are CPU tensors."""
    return all(tensor.device.type == "cpu" for tensor in tensors)


def pair_state(x: Tensor, y: Tensor, ids: Tensor, half: Tensor) -> state.Pair:
    """As `state.pair_state`."""
    p_peak, p_total, p_selected, moment, q_peak, q_total, q_selected, deviation = pack_states(
        [x, y], ids, half
    )
    policy = state.Mass(p_peak, p_total, p_selected)
    return state.Pair(policy, moment, state.Mass(q_peak, q_total, q_selected), deviation)


def single_state(x: Tensor, ids: Tensor, half: Tensor) -> state.Single:
    """As `state.single_state`."""
    peak, total, selected, moment = pack_states([x], ids, half)
    return state.Single(state.Mass(peak, total, selected), moment)


@torch.library.custom_op("credit::cpu_pack_states", mutates_args=(), device_types="cpu")
def pack_states(logits: Sequence[Tensor], ids: Tensor, half: Tensor) -> Tensor:
    """The fields [4 or 8, ..., 1] of the state of one model's logits [..., V], or two; ids are [..., 1]."""
    policy, moment, *other = _fold(tuple(logits), ids, half)
    fields = [*policy, moment, *(other and [*other[0], other[1]])]
    return torch.from_numpy(np.stack(fields))


@torch.library.custom_op("credit::cpu_token_statistics", mutates_args=(), device_types="cpu")
def token_statistics(x: Tensor, y: Tensor, ids: Tensor, half: Tensor) -> Tensor:
    """log p, log q, H, d [4, ...] of x and y [..., V]; half is 1 / 2T [...]."""
    with np.errstate(all="ignore"):
        whole = _fold((x, y), ids[..., None], half[..., None])
        return torch.from_numpy(np.stack(array_api.read_statistics(whole, half.numpy()[..., None])))


@torch.library.custom_op("credit::cpu_log_probs_and_entropy", mutates_args=(), device_types="cpu")
def log_probs_and_entropy(x: Tensor, ids: Tensor, half: Tensor) -> Tensor:
    """log p, H, and for the gradient the peak and ln A [4, ...]."""
    halves = half.numpy()[..., None]
    with np.errstate(all="ignore"):
        policy, moment = _fold((x,), ids[..., None], half[..., None])
        fields = state.log_prob(policy, halves), state.entropy(policy, moment)
        return torch.from_numpy(np.stack([*fields, policy.peak[..., 0], np.log(policy.total)[..., 0]]))


@torch.library.custom_op("credit::cpu_grad_logits", mutates_args=(), device_types="cpu")
def grad_logits(x: Tensor, ids: Tensor, half: Tensor, saved: Tensor, given: Tensor) -> Tensor:
    """The gradient in the logits x; saved [3, ...] are peak, ln A and H, given [2, ...] of log p and H."""
    if x.ndim == 1:
        return _grad_logits(x[None], ids[None], half[None], saved[:, None], given[:, None])[0]
    return _grad_logits(x, ids, half, saved, given)


def _grad_logits(x: Tensor, ids: Tensor, half: Tensor, saved: Tensor, given: Tensor) -> Tensor:
    gradient = torch.empty_like(x, memory_format=torch.contiguous_format)
    side, out = (_as_array(tensor, half.dtype) for tensor in (x, gradient))
    tokens, halves, kept, wanted = (t.numpy()[..., None] for t in (ids, half, saved, given))

    def work(block: numpy_backend.Block, scratch: Any) -> None:
        rows, columns = block.shape
        t, p, wide = (buffer[: rows * columns].reshape(rows, columns) for buffer in scratch)
        # A view: blocks of several leading indices hold all columns of a gradient without gaps.
        target = out[block.place].reshape(rows, columns) if isinstance(out, np.ndarray) else p
        local = tokens[block.tokens].reshape(-1) - block.columns.start
        hit = np.flatnonzero((local >= 0) & (local < columns))
        own, every = block.tokens, (slice(None), *block.tokens)
        of_rows = halves[own].reshape(-1, 1), kept[every].reshape(3, -1, 1), wanted[every].reshape(2, -1, 1)
        logits, hits = _read_block(side, block.place, wide), (hit, local[hit])
        inplace.write_grad_logits(logits, *of_rows, hits, target, t)
        if target is p:
            gradient[block.place] = torch.from_numpy(p).reshape(gradient[block.place].shape)

    threads = 1 if x.numel() < numpy_backend.ALONE else torch.get_num_threads()
    places = list(numpy_backend.split_blocks(tuple(ids.shape), x.shape[-1], numpy_backend.NARROW, threads))
    numpy_backend.run_in_threads(work, places, threads, (3, numpy_backend.NARROW), halves.dtype)
    return gradient


@pack_states.register_fake
def _(logits: Sequence[Tensor], ids: Tensor, half: Tensor) -> Tensor:
    return half.new_empty((4 * len(logits), *ids.shape))


@token_statistics.register_fake
def _(x: Tensor, y: Tensor, ids: Tensor, half: Tensor) -> Tensor:
    return half.new_empty((4, *ids.shape))


@log_probs_and_entropy.register_fake
def _(x: Tensor, ids: Tensor, half: Tensor) -> Tensor:
    return half.new_empty((4, *ids.shape))


@grad_logits.register_fake
def _(x: Tensor, ids: Tensor, half: Tensor, saved: Tensor, given: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.register_vmap("credit::cpu_pack_states")
def _(info: Any, axes: Any, logits: Sequence[Tensor], ids: Tensor, half: Tensor) -> tuple[Tensor, int]:
    sides = [_move_batch_axis(info, axis, x) for axis, x in zip(axes[0], logits, strict=True)]
    return pack_states(sides, _move_batch_axis(info, axes[1], ids), _move_batch_axis(info, axes[2], half)), 1


@torch.library.register_vmap("credit::cpu_token_statistics")
def _(info: Any, axes: Any, *tensors: Tensor) -> tuple[Tensor, int]:
    return token_statistics(*(_move_batch_axis(info, *pair) for pair in zip(axes, tensors, strict=True))), 1


def _move_batch_axis(info: Any, axis: int | None, tensor: Tensor) -> Tensor:
    return tensor.expand(info.batch_size, *tensor.shape) if axis is None else tensor.movedim(axis, 0)


def _fold(logits: tuple[Tensor, ...], ids: Tensor, half: Tensor) -> Any:
    """The state as numpy arrays; ids and half are [..., 1]."""
    selected = [state.select_logits(x, ids).to(half.dtype).numpy() for x in logits]
    sides = tuple(_as_array(x, half.dtype) for x in logits)
    return numpy_backend.fold_blocks(
        sides, _read_block, selected, ids.numpy(), half.numpy(), torch.get_num_threads()
    )


def _as_array(tensor: Tensor, dtype: torch.dtype) -> Any:
    """The tensor's memory as an array, or the tensor itself where numpy lacks the type or would convert."""
    return tensor.numpy() if tensor.dtype == dtype else tensor


def _read_block(logits: Any, place: tuple[Any, ...], out: Any) -> Any:
    if isinstance(logits, np.ndarray):
        return numpy_backend.read_block(logits, place, out)
    block = logits[place]
    torch.from_numpy(out).reshape(block.shape).copy_(block)
    return out
