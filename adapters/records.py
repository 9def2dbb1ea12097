"""Which batches and rows are recorded for the views of credit.lens."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

import credit
from credit.adapters.sessions import select_rows
from credit.lens.extra import convert_extra

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
    """The first groups that have `most` rows at most together, and the first one in any case.

    The rows come group by group, also where a framework has mixed them, and the groups are numbered anew.
    """
    of_groups = dict[int, list[int]]()
    for row, group in enumerate(rollouts.groups.tolist()):
        of_groups.setdefault(group, []).append(row)
    chosen = list[int]()
    for _, rows_of_group in sorted(of_groups.items()):
        if chosen and len(chosen) + len(rows_of_group) > most:
            break
        chosen += rows_of_group
    rows = torch.tensor(chosen).to(rollouts.mask.device)
    kept = credit.Credit(result.advantages[rows], result.weights[rows], {})
    return Recorded(rows, select_rows(rollouts, rows), kept)


def select_plain(columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """The columns [N] that records can hold: what JSON can, so no images, by names that are not theirs."""
    found = dict[str, list[Any]]()
    for name, values in columns.items():
        try:
            rows = convert_extra({name: values}, len(values))
        except ValueError:
            continue
        found[name] = [row[name] for row in rows]
    return found
