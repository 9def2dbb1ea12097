"""Which batches and rows are recorded for the views of credit.lens, and the settings that say so."""

from collections.abc import Mapping, Sequence
from pathlib import Path
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


def check_record_settings(given: Mapping[str, Any], prefix: str = "") -> None:
    """Raises ValueError for wrong values of record_steps, record_completions and record_path, None: not set.

    The prefix is what users write before these names.
    """
    for name in ("record_steps", "record_completions"):
        if given.get(name) is not None:
            check_count(prefix + name, given[name])
    path = given.get("record_path")
    if path is None:
        return
    if not isinstance(path, str | Path) or path == "":
        raise ValueError(f"{prefix}record_path is {path!r}; expected a file's path, such as 'a.jsonl'")
    if given.get("record_steps") is None:
        raise ValueError(
            f"{prefix}record_path is set, and nothing is recorded; set {prefix}record_steps, or leave it out"
        )


def check_count(name: str, value: Any) -> None:
    """Raises ValueError unless the setting's value is 1, 2, ...; True, which Python takes for 1, is none."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; expected a whole number, 1 or more")


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
