"""From TRL's generated batch to the rollouts that an estimator takes."""

import time
from typing import Any

import torch

import credit
from credit.adapters import rewards
from credit.adapters.fields import LOGGED, add_logged, list_compared, list_shown, needed_statistics
from credit.adapters.trl import extra, overlong, statistics, token_rewards
from credit.adapters.trl.processes import gather_rows
from credit.fields import replace_arrays

Tensor = torch.Tensor


def rollouts_for_filter(trainer: Any, output: dict[str, Tensor]) -> credit.Rollouts:
    """Rewards, groups and mask of all processes, by which `keep` decides; without the overlong penalty."""
    size = trainer.num_generations
    given = _deciding_rewards(trainer)
    return credit.Rollouts(
        given, _group_ids(given, size), gather_rows(trainer.accelerator, token_mask(output))
    )


def make_rollouts(
    trainer: Any, output: dict[str, Tensor], mode: str, valid: Tensor, every: bool
) -> credit.Rollouts:
    """The rollouts of all processes in TRL's order, in which groups are contiguous.

    Rows that are not `valid` [N] take no part in their groups. With `every`, all statistics that were
    computed are filled in, also those that the estimator does not read.
    """
    mask = token_mask(output)
    fields = token_fields(trainer, output, mask, mode, every, logs=True)
    scored = scored_mask(trainer, output, mask)
    if scored is not mask:
        missing = trainer.accelerator.gather((mask - scored).sum()).sum().item()
        trainer._metrics[mode]["credit/unscored_tokens"].append(float(missing))
    size = group_size(trainer, mode)
    given = batch_rewards(trainer, token_rewards.leave_outcomes(trainer, output))
    rollouts = credit.Rollouts(
        rewards=given,
        groups=_group_ids(given, size),
        mask=gather_rows(trainer.accelerator, scored),
        valid=valid,
        progress=training_progress(trainer),
    )
    return replace_arrays(
        rollouts, {name: gather_rows(trainer.accelerator, field) for name, field in fields.items()}
    )


def batch_rewards(trainer: Any, given: Tensor | None = None) -> Tensor:
    """The rewards [N] or [N, K] of the last generated batch, with the overlong penalty.

    `given` [N, K] stand in for those of the functions.
    """
    given = trainer.credit.rewards if given is None else given
    return rewards.combine_rewards(trainer.credit.estimator, given, trainer.reward_weights)


def _deciding_rewards(trainer: Any) -> Tensor:
    """The rewards [N] or [N, K] by which groups are kept: of one function, if a setting names it."""
    given, weights, state = trainer.credit.rewards, trainer.reward_weights, trainer.credit
    if overlong.has_penalty(trainer.args):
        given, weights = given[:, :-1], weights[:-1]
    if state.filter_column == "total":
        return rewards.sum_rewards(given, weights)
    if state.filter_column is not None:
        return given[:, state.filter_column]
    return rewards.select_deciding(state.estimator, given, weights)


def token_fields(
    trainer: Any, output: dict[str, Tensor], mask: Tensor, mode: str, every: bool = False, logs: bool = False
) -> dict[str, Tensor]:
    """The arrays [B, ...] of this process' rows that the estimator reads; with `every`, all statistics.

    The mask is that of all tokens, so that one without a log-prob does not split its turn. With `logs` the
    means of the logged statistics over all processes' tokens are logged, and what metrics read is added.
    """
    needs, fields = trainer.credit.estimator.required_fields, dict[str, Tensor]()
    needed = needed_statistics(trainer.credit.estimator)
    if needed:
        started = time.perf_counter()
        names = needed
        if logs:
            compared = list_compared(trainer.credit.estimator)
            names, needs = tuple(dict.fromkeys((*add_logged(needed), *compared))), (*needs, *compared)
        if every:
            names = tuple(dict.fromkeys((*names, *list_shown(trainer.credit.estimator))))
        found = statistics.compute_statistics(trainer, output, mask, names)
        fields |= {name: field for name, field in found.items() if every or name in needs}
        trainer._metrics[mode]["credit/statistics_seconds"].append(time.perf_counter() - started)
        if logs:
            _log_statistics(trainer, found, mask, mode)
    if "rollout_log_probs" in needs:
        fields["rollout_log_probs"] = recorded_log_probs(trainer, output)
    if "turns" in needs:
        fields["turns"] = credit.tokens.turns(mask)
    return fields | extra.token_arrays(needs, output)


def _log_statistics(trainer: Any, found: dict[str, Tensor], mask: Tensor, mode: str) -> None:
    logged = [name for name in LOGGED if name in found]
    chosen = mask.bool()
    own = [chosen.sum().double(), *(found[name][chosen].double().sum() for name in logged)]
    count, *sums = trainer.accelerator.gather(torch.stack(own)[None].float()).sum(dim=0).tolist()
    for name, total in zip(logged, sums, strict=True):
        trainer._metrics[mode][f"credit/{LOGGED[name]}"].append(total / max(count, 1.0))


def token_mask(output: dict[str, Tensor]) -> Tensor:
    """The tokens [B, T] that the policy chose: neither padding nor the output of tools."""
    return output["completion_mask"] * output.get("tool_mask", 1)


def scored_mask(trainer: Any, output: dict[str, Tensor], mask: Tensor) -> Tensor:
    """The mask as the estimator sees it: if it reads the engine's log-probs, without tokens that have none.

    The engine gives no number for some tokens of a policy that is nearly certain.
    """
    if "rollout_log_probs" not in trainer.credit.estimator.required_fields:
        return mask
    return mask * recorded_log_probs(trainer, output).isfinite()


def recorded_log_probs(trainer: Any, output: dict[str, Tensor]) -> Tensor:
    """The log-probs [B, T] of the engine that sampled; a ValueError if the batch has none."""
    found = output.get("sampling_per_token_logps")
    if found is None:
        raise ValueError(
            f"{trainer.credit.estimator.name} needs rollout_log_probs, but this batch has none; let the "
            "rollout_func return a list of one number per token of each completion as 'logprobs'"
        )
    return found


def group_size(trainer: Any, mode: str) -> int:
    """Completions per prompt."""
    return int(trainer.num_generations if mode == "train" else trainer.num_generations_eval)


def training_progress(trainer: Any) -> Tensor:
    """The share of the training's steps that are done, in [0, 1], as a 0-d array."""
    state = trainer.state
    return torch.tensor(state.global_step / max(state.max_steps, 1), device=trainer.accelerator.device)


def _group_ids(given: Tensor, size: int) -> Tensor:
    return torch.arange(len(given), device=given.device) // size
