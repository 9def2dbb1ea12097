"""What Tunix's loss gets of a batch, with two additions that its own TrainExample has no place for."""

from typing import Any

import flax
import jax.numpy as jnp
import numpy as np
from tunix.rl import common

Array = Any


@flax.struct.dataclass(frozen=True)
class CreditExample(common.TrainExample):
    """Tunix's TrainExample. Where rows are packed, NaN advantages mark tokens that are not in the loss."""

    policy_version: Array = None  # the agentic learner's
    share: Array = None
    """[B], a number for all rows: what the mean loss of the micro-batch weighs in that of its step."""


def make_example(example: Any, advantages: Any, kept: Any, packed: bool) -> CreditExample:
    """The example with advantages [B, T] for the tokens that stay in the loss.

    Where Tunix packs rows it takes as many tokens of each as its mask counts, from the first on. There the
    mask reaches to the last token of the row, whatever lies before it.
    """
    fields = {name: getattr(example, name) for name in example.__dataclass_fields__}
    advantages, kept = np.asarray(advantages, np.float32), np.asarray(kept, bool)
    if packed:
        advantages = np.where(kept, advantages, np.float32("nan"))
        kept = np.logical_or.accumulate(kept[:, ::-1], axis=1)[:, ::-1]
    fields |= {"advantages": jnp.asarray(advantages), "completion_mask": jnp.asarray(kept)}
    return CreditExample(**fields)
