"""What the policy's workers return beside their log-probs, which SkyRL's trainer reads alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np
import torch

KEY = "credit_"  # as in worker.py, which needs FSDP to be imported
METHODS = ("forward", "forward_from_staged")

Tensor = torch.Tensor
Rows = list[dict[str, Any]]


@contextmanager
def outputs(dispatch: Any) -> Iterator[list[Rows]]:
    """Within it the rows of each forward that SkyRL dispatches are kept, in their order."""
    calls = list[Rows]()

    def keeping(method: Any) -> Any:
        @wraps(method)
        def call(*positional: Any, **named: Any) -> Any:
            output = method(*positional, **named)
            calls.append(output.loss_fn_outputs)
            return output

        return call

    own = {name: keeping(getattr(dispatch, name)) for name in METHODS}
    vars(dispatch).update(own)
    try:
        yield calls
    finally:
        for name in own:
            del vars(dispatch)[name]


def stack(
    calls: Sequence[Rows], names: Sequence[str], mask: Tensor, boundaries: Sequence[tuple[int, int]] | None
) -> dict[str, Tensor]:
    """The statistics [N, T] of all rows by name, of those that the workers returned.

    Where SkyRL runs a forward per mini-batch, one for each of the boundaries, it adds rows at their ends, so
    that its workers get as many each; rows behind the last boundary are such, too.
    """
    spans = boundaries if boundaries and len(calls) == len(boundaries) else [(0, len(mask))]
    if len(spans) != len(calls):
        raise RuntimeError(f"SkyRL ran {len(calls)} forwards of the policy for {len(spans)} mini-batches")
    found = {name: torch.zeros(mask.shape) for name in names}
    for (start, end), rows in zip(spans, calls, strict=True):
        for name, whole in found.items():
            kept = np.stack([row[KEY + name] for row in rows[: end - start]])
            whole[start : start + len(kept)] = torch.from_numpy(kept)
    return found
