"""The strides of rows in memory, so that kernels read strided logits without a copy."""

import torch

Tensor = torch.Tensor


def is_aligned(x: Tensor, y: Tensor, *strides: int) -> bool:
    """Whether Triton, which looks for multiples of 16, knows that it may load 16 bytes at a time."""
    return all(number % 16 == 0 for number in (x.data_ptr(), y.data_ptr(), *strides))


def is_shifted(x: Tensor, y: Tensor, x_rows: tuple[int, int], y_rows: tuple[int, int]) -> bool:
    """Whether rows lie anyhow, but both models' equally far from a boundary of 16 bytes."""
    if x.dtype != y.dtype or is_aligned(x, y, *x_rows, *y_rows):
        return False
    apart = [(a - b) * x.element_size() for a, b in zip(x_rows, y_rows, strict=True)]
    return all(number % 16 == 0 for number in (x.data_ptr() - y.data_ptr(), *apart))


def is_scattered(*tensors: Tensor) -> bool:
    """Whether the row axes need more than two strides; the first axis is then split up rather than copied."""
    return len(_merge_axes(*tensors)) > 2


def row_strides(*tensors: Tensor) -> tuple[int, list[tuple[int, int]]]:
    """Row r of a tensor starts at r // inner times its first stride plus r % inner times its second."""
    groups = [(1, [0] * len(tensors)), *_merge_axes(*tensors)][-2:]
    groups = [(1, [0] * len(tensors)), *groups][-2:]
    inner, inner_strides = groups[1]
    return max(inner, 1), list(zip(groups[0][1], inner_strides, strict=True))


def _merge_axes(*tensors: Tensor) -> list[tuple[int, list[int]]]:
    """Lengths and strides of the row axes, with neighbors merged where one stride steps over both."""
    groups: list[tuple[int, list[int]]] = []
    for axis, length in enumerate(tensors[0].shape[:-1]):
        strides = [tensor.stride(axis) for tensor in tensors]
        if length == 1:
            continue
        if groups and groups[-1][1] == [length * stride for stride in strides]:
            length *= groups.pop()[0]
        groups.append((length, strides))
    return groups
