"""Dynamic sampling: groups without signal leave the batch, or give way to others."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from trl.trainer.utils import pad

import credit
from credit.adapters.trl import completions_table, rewards, rollouts

Tensor = torch.Tensor
Rows = Sequence[dict[str, Any]]
PADDING = {"tool_mask": 1, "importance_sampling_ratio": 1}  # elsewhere 0, and the tokenizer's for ids
ROW_MEANS = ("grpo", "sapo", "dr_grpo", "luspo")
"""loss_type whose loss TRL divides by the number of rows, masked ones included."""


class Round(NamedTuple):
    """One generation: this process' output, and what all processes know of it."""

    output: dict[str, Any]
    rewards: Tensor  # [N, K]
    table: completions_table.Table
    live: Tensor  # [processes, groups]


def sampling_mode(args: Any, estimator: credit.Estimator) -> str:
    """What is done about groups without signal: none, filter or resample."""
    decides = type(estimator).keep is not credit.Estimator.keep
    return args.dynamic_sampling or ("filter" if decides else "none")


def resample(trainer: Any, generate: Callable[[Rows], dict[str, Any]], inputs: Rows) -> dict[str, Any]:
    """A batch like `generate(inputs)`, of groups that carry signal as far as max_sampling_rounds allow it.

    Every process runs the same rounds with the same number of prompts, since generating takes all of
    them, and fills its own part of the batch. What is missing at the end is filled with other groups.
    """
    size, rounds = trainer.num_generations, list[Round]()
    wanted = len(inputs) // size
    while True:
        output = generate(inputs)
        live = find_live_rows(trainer, rollouts.rollouts_for_filter(trainer, output))
        live = live.view(trainer.accelerator.num_processes, -1, size).any(dim=2)
        rounds.append(
            Round(
                output,
                trainer.credit_rewards,
                completions_table.last_rows(trainer._logs, live.numel() * size),
                live,
            )
        )
        live = torch.cat([each.live for each in rounds], dim=1)
        missing = wanted - int(live.sum(dim=1).min())
        if missing <= 0 or len(rounds) == trainer.args.max_sampling_rounds:
            break
        # As many as will do if the next groups are alive as often as these, and no more than fit.
        hoped = math.ceil(missing / max(live.float().mean().item(), missing / wanted))
        inputs = _draw_prompts(trainer, min(hoped, wanted))
    metrics = trainer._metrics["train"]
    metrics["credit/sampling_rounds"].append(len(rounds))
    metrics["credit/generated_groups"].append(live.numel())
    if len(rounds) == 1:
        return output
    chosen = (~live).int().argsort(dim=1, stable=True)[:, :wanted]  # live groups first, in order of arrival
    rows = (chosen[:, :, None] * size + torch.arange(size, device=live.device)).flatten(start_dim=1)
    _replace_rewards_and_logs(trainer, rounds, rows)
    return _merge_outputs(trainer, [each.output for each in rounds], rows[trainer.accelerator.process_index])


def find_live_rows(trainer: Any, given: credit.Rollouts) -> Tensor:
    """The rows [N] that the estimator keeps; where the user asks for sampling, only of groups that vary."""
    kept = trainer.credit_estimator.keep(given)
    return kept & credit.DAPO().keep(given) if trainer.args.dynamic_sampling else kept


def mask_dropped_rows(trainer: Any, output: dict[str, Tensor], mode: str) -> Tensor:
    """Takes rows without a finite reward, and in training those without signal, out of the loss.

    Returns which rows [N] of all processes stay.
    """
    stays = rollouts.has_finite_rewards(rewards.combine_rewards(trainer, rollouts.group_size(trainer, mode)))
    if mode == "train" and sampling_mode(trainer.args, trainer.credit_estimator) != "none":
        live = find_live_rows(trainer, rollouts.rollouts_for_filter(trainer, output))
        share = live.view(-1, trainer.num_generations).any(dim=1).float().mean().item()
        trainer._metrics["train"]["credit/dropped_groups"].append(1.0 - share)
        stays = stays & live
    if not stays.all():
        own = own_rows(trainer, stays, len(output["completion_mask"]))[:, None]
        for name in ("completion_mask", "tool_mask"):
            if name in output:
                output[name] = output[name] * own
        output["num_items_in_batch"] = trainer.accelerator.gather(rollouts.token_mask(output).sum()).sum()
    return stays


def row_mean_correction(loss_type: str, stays: Tensor) -> float:
    """What the advantages are multiplied with, so that the loss is a mean over the rows that stay.

    TRL's KL term, where beta is not 0, stays a mean over all rows.
    """
    if loss_type not in ROW_MEANS:
        return 1.0
    return len(stays) / max(int(stays.sum()), 1)


def own_rows(trainer: Any, field: Tensor, rows: int) -> Tensor:
    """This process' rows of a field [N, ...] of all of them."""
    first = trainer.accelerator.process_index * rows
    return field[first : first + rows]


def _draw_prompts(trainer: Any, groups: int) -> Rows:
    """Rows for that many groups on this process, from the stream that all processes share."""
    accelerator, dataset = trainer.accelerator, trainer.credit_sampler.data_source
    drawn = trainer.credit_prompts.take(groups * accelerator.num_processes)
    own = drawn[accelerator.process_index * groups :][:groups]
    return [dict(dataset[index]) for index in own for _ in range(trainer.num_generations)]


def _replace_rewards_and_logs(trainer: Any, rounds: list[Round], rows: Tensor) -> None:
    """Makes rewards and TRL's table of completions those of the chosen rows [processes, rows]."""
    places, first = [], 0
    for each in rounds:
        count = len(each.rewards)
        places.append(torch.arange(first, first + count, device=rows.device).view(len(rows), -1))
        first += count
    chosen = torch.cat(places, dim=1).gather(1, rows).flatten()
    trainer.credit_rewards = torch.cat([each.rewards for each in rounds])[chosen]
    parts = [(len(each.rewards), each.table) for each in rounds]
    completions_table.replace_rows(trainer._logs, parts, chosen.tolist())


def _merge_outputs(trainer: Any, outputs: list[dict[str, Tensor]], rows: Tensor) -> dict[str, Tensor]:
    """The chosen rows of several rounds as one output of TRL's, padded to one width."""
    merged = dict(outputs[0])
    for name, first in merged.items():
        if first.ndim == 0:
            continue
        every = [row for output in outputs for row in output[name]]
        chosen = [every[row] for row in rows.tolist()]
        value = trainer._tokenizer.pad_token_id if name.endswith("_ids") else PADDING.get(name, 0)
        side = "left" if name.startswith("prompt_") else "right"
        merged[name] = torch.stack(chosen) if first.ndim == 1 else pad(chosen, value, side)
    mask = rollouts.token_mask(merged)
    return merged | {"num_items_in_batch": trainer.accelerator.gather(mask.sum()).sum()}
