"""Which batches and rows are recorded for the views of credit.lens."""

from typing import Any, NamedTuple

import torch

import credit
from credit.fields import map_arrays

Tensor = torch.Tensor
CONTEXT = 4  # ids before a completion that its first token's text may depend on


class Recorded(NamedTuple):
    """The first groups of a batch."""

    rows: Tensor  # [n], their places in it
    rollouts: credit.Rollouts
    result: credit.Credit


def serves_step(trainer: Any, steps: int) -> bool:
    """Whether the batch just generated serves one of the steps 0, `steps`, 2 `steps`, ...

    The trainer is TRL's GRPOTrainer or one that has its settings.
    """
    args = trainer.args
    served = trainer.num_iterations * args.steps_per_generation // args.gradient_accumulation_steps
    return bool(trainer.state.global_step % steps < max(served, 1))


def select_groups(rollouts: credit.Rollouts, result: credit.Credit, most: int) -> Recorded:
    """The first groups that have `most` rows at most together, and the first one in any case."""
    groups = rollouts.groups.tolist()
    sizes = {group: groups.count(group) for group in dict.fromkeys(groups)}
    chosen, count = set[int](), 0
    for group, size in sizes.items():
        count += size
        if chosen and count > most:
            break
        chosen.add(group)
    rows = torch.tensor([row for row, group in enumerate(groups) if group in chosen])
    rows = rows.to(rollouts.mask.device)
    given = map_arrays(lambda array: array[rows] if array.ndim else array, rollouts)
    return Recorded(rows, given, credit.Credit(result.advantages[rows], result.weights[rows], {}))
