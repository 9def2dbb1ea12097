"""Dynamic sampling: groups of equal rewards leave the loss, or other groups take their place."""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Literal, NamedTuple

import torch
from trl.trainer.utils import pad

import credit
from credit.adapters import traits
from credit.adapters.trl import completions_table, options, rollouts
from credit.adapters.trl.processes import own_rows
from credit.several_rewards import find_scored_rows

Tensor = torch.Tensor
Rows = Sequence[dict[str, Any]]
PADDING = {"tool_mask": 1, "importance_sampling_ratio": 1}  # 0 for others, ids have the tokenizer's
ROW_MEANS = ("grpo", "sapo", "dr_grpo", "luspo")
"""Values of loss_type whose loss TRL divides by the number of rows, masked ones included."""


class Round(NamedTuple):
    """One generation: this process' output, and what all processes share of it."""

    output: dict[str, Any]
    rewards: Tensor  # [N, K], of all processes
    table: completions_table.Table
    live: Tensor  # [processes, groups], whether a group is kept


def sampling_mode(args: Any, estimator: credit.Estimator) -> str:
    """What is done about groups whose rewards are equal: none, filter or resample."""
    return args.dynamic_sampling or ("filter" if traits.filters_groups(estimator) else "none")


def resample(trainer: Any, generate: Callable[[Rows], dict[str, Any]], inputs: Rows) -> dict[str, Any]:
    """A batch like `generate(inputs)`, but of groups that are kept, as far as max_sampling_rounds suffice.

    Every process runs the same rounds with the same number of prompts, since generation is collective,
    and fills its own part of the batch. If rounds run out, groups that are not kept fill the rest.
    """
    size, rounds = trainer.num_generations, list[Round]()
    wanted = len(inputs) // size
    while True:
        output = generate(inputs)
        options.refuse_resampled_images(trainer.args, output, "the batch")
        live = find_live_rows(
            trainer.credit.estimator, trainer.args, rollouts.rollouts_for_filter(trainer, output)
        )
        live = live.view(trainer.accelerator.num_processes, -1, size).any(dim=2)
        rounds.append(
            Round(
                output,
                trainer.credit.rewards,
                completions_table.last_rows(trainer._logs, live.numel() * size),
                live,
            )
        )
        live = torch.cat([each.live for each in rounds], dim=1)
        missing = wanted - int(live.sum(dim=1).min())
        if missing <= 0 or len(rounds) == trainer.args.max_sampling_rounds:
            break
        # As many prompts as suffice if the same share of the next groups is kept, at most a whole batch.
        hoped = math.ceil(missing / max(live.float().mean().item(), missing / wanted))
        inputs = _draw_prompts(trainer, min(hoped, wanted))
    metrics = trainer._metrics["train"]
    metrics["credit/sampling_rounds"].append(len(rounds))
    metrics["credit/generated_groups"].append(live.numel())
    if len(rounds) == 1:
        return output
    chosen = (~live).int().argsort(dim=1, stable=True)[:, :wanted]  # kept groups first, oldest first
    rows = (chosen[:, :, None] * size + torch.arange(size, device=live.device)).flatten(start_dim=1)
    _replace_rewards_and_logs(trainer, rounds, rows)
    return _merge_outputs(trainer, [each.output for each in rounds], rows[trainer.accelerator.process_index])


def find_column(chosen: str | None, names: Sequence[str]) -> int | Literal["total"] | None:
    """The place of the reward function of that name, which may also be `total`."""
    places = [place for place, name in enumerate(names) if name == chosen]
    if len(places) == 1:
        return places[0]
    if chosen is None or (chosen == "total" and not places):
        return None if chosen is None else "total"
    found = "several have" if places else "none has"
    raise ValueError(
        f"dynamic_sampling_reward is {chosen!r}, and of the reward functions {', '.join(names)} {found} that "
        "name; name one of them, or total"
    )


def find_live_rows(estimator: credit.Estimator, args: Any, given: credit.Rollouts) -> Tensor:
    """The rows [N] that the estimator keeps; with dynamic_sampling set, only those whose group varies."""
    kept = estimator.keep(given)
    return kept & credit.DAPO().keep(given) if args.dynamic_sampling else kept


def mask_dropped_rows(trainer: Any, output: dict[str, Tensor], mode: str) -> Tensor:
    """Masks rows without a finite reward, and in training rows that are not kept, out of the loss.

    Returns which rows [N] of all processes stay.
    """
    stays = find_scored_rows(rollouts.batch_rewards(trainer))
    if mode == "train" and sampling_mode(trainer.args, trainer.credit.estimator) != "none":
        live = find_live_rows(
            trainer.credit.estimator, trainer.args, rollouts.rollouts_for_filter(trainer, output)
        )
        share = live.view(-1, trainer.num_generations).any(dim=1).float().mean().item()
        trainer._metrics["train"]["credit/dropped_groups"].append(1.0 - share)
        stays = stays & live
    if not stays.all():
        own = own_rows(trainer.accelerator, stays, len(output["completion_mask"]))[:, None]
        # With tools, rows stay attended to: a model that places images counts the tokens it attends to.
        name = "tool_mask" if "tool_mask" in output else "completion_mask"
        output[name] = output[name] * own
        output["num_items_in_batch"] = trainer.accelerator.gather(rollouts.token_mask(output).sum()).sum()
    return stays


def row_mean_correction(loss_type: str, stays: Tensor) -> float:
    """The factor on the advantages that makes the loss a mean over the rows that stay.

    TRL's KL term, if beta is not 0, has no such factor: rows that left count in its divisor, with a KL of 0.
    """
    if loss_type not in ROW_MEANS:
        return 1.0
    return len(stays) / max(int(stays.sum()), 1)


def _draw_prompts(trainer: Any, groups: int) -> Rows:
    """Inputs for that many groups on this process, from the stream that all processes share."""
    accelerator, dataset = trainer.accelerator, trainer.credit.sampler.data_source
    drawn = trainer.credit.prompts.take(groups * accelerator.num_processes)
    own = drawn[accelerator.process_index * groups :][:groups]
    return [dict(dataset[index]) for index in own for _ in range(trainer.num_generations)]


def _replace_rewards_and_logs(trainer: Any, rounds: list[Round], rows: Tensor) -> None:
    """Replaces the rewards and TRL's table of completions by those of the chosen rows [processes, rows]."""
    places, first = [], 0
    for each in rounds:
        count = len(each.rewards)
        places.append(torch.arange(first, first + count, device=rows.device).view(len(rows), -1))
        first += count
    chosen = torch.cat(places, dim=1).gather(1, rows).flatten()
    trainer.credit.rewards = torch.cat([each.rewards for each in rounds])[chosen]
    parts = [(len(each.rewards), each.table) for each in rounds]
    completions_table.replace_rows(trainer._logs, parts, chosen.tolist())


def _merge_outputs(trainer: Any, outputs: list[dict[str, Tensor]], rows: Tensor) -> dict[str, Tensor]:
    """The chosen rows of several rounds as one output of TRL's, padded to one width."""
    merged = dict(outputs[0])
    for name, first in merged.items():
        if first.ndim == 0:
            continue
        # One round's numbers of the user's own may all be integers, and another's not.
        kind = reduce(torch.promote_types, (output[name].dtype for output in outputs))
        every = [row for output in outputs for row in output[name].to(kind)]
        chosen = [every[row] for row in rows.tolist()]
        value = trainer._tokenizer.pad_token_id if name.endswith("_ids") else PADDING.get(name, 0)
        side = "left" if name.startswith("prompt_") else "right"
        merged[name] = torch.stack(chosen) if first.ndim == 1 else pad(chosen, value, side)
    mask = rollouts.token_mask(merged)
    return merged | {"num_items_in_batch": trainer.accelerator.gather(mask.sum()).sum()}
