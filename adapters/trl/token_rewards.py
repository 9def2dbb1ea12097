"""The lists of all reward functions as `token_rewards`, and the rewards that are left beside them."""

import logging
from typing import Any

import numpy as np
import torch

import credit
from credit.adapters import rewards, traits
from credit.adapters.readings import NAME, Reading, find_shared_reading
from credit.adapters.trl.processes import own_rows
from credit.estimators.token_rewards import TokenRewarded

Tensor = torch.Tensor
LISTED = "credit_listed"  # in TRL's batch: of which functions [B, K] the rewards are in token_rewards alone

logger = logging.getLogger("credit")


def collect_lists(trainer: Any, output: dict[str, Tensor], elsewhere: bool) -> dict[str, list[np.ndarray]]:
    """By the name token_rewards, the weighted sum of the functions' lists for each completion.

    A number of another function stays in `rewards`, and the batch says which rewards are not there; with the
    reading "tokens" it lies on the policy's last token. Empty if no function returns lists: one that returned
    None for the whole batch may do so, unless token_rewards come from `elsewhere`.

    Raises:
        ValueError: the parts of a mix read the rewards differently.
    """
    state, generated = trainer.credit, trainer.credit.generated
    some = torch.tensor([bool(generated.listed)], device=trainer.accelerator.device)
    state.returns_lists |= bool(trainer.accelerator.gather(some).any())
    absent = bool(state.rewards.isnan().all(dim=0).any())
    if not state.returns_lists and (elsewhere or not absent):
        return {}
    weights, rows = trainer.reward_weights.tolist(), [np.zeros(len(own)) for own in generated.own]
    listed = torch.zeros(len(rows), len(weights), dtype=torch.bool)
    for column, lists in generated.listed.items():
        for row, values in lists.items():
            rows[row] += weights[column] * values
            listed[row, column] = True
    if _find_shared_reading(state.estimator) == "outcome":
        output[LISTED] = listed.to(trainer.accelerator.device)
    else:
        _add_numbers(trainer, rows, listed)
    return {NAME: rows}


def leave_outcomes(trainer: Any, output: dict[str, Tensor]) -> Tensor:
    """The rewards [N, K] of all processes, with 0 for those that are in token_rewards alone."""
    given: Tensor = trainer.credit.rewards
    if LISTED not in output:
        return given
    return given.masked_fill(trainer.accelerator.gather(output[LISTED].int()).bool(), 0.0)


def report_sums(trainer: Any) -> None:
    """Logs one line, once, if reward functions return lists and the estimator takes their sums."""
    state = trainer.credit
    if state.estimator is None or state.returns_lists or NAME in state.estimator.required_fields:
        return
    listed = state.generated.listed if state.generated is not None else {}
    state.returns_lists = bool(listed)
    if listed and trainer.accelerator.is_main_process:
        sourced = any(
            isinstance(part.estimator, TokenRewarded) for part in traits.list_parts(state.estimator)
        )
        logger.warning(
            "%s gets the sum of the list that %s returned for a completion, since it reads no %s%s",
            state.estimator.name,
            " and ".join(trainer.reward_func_names[column] for column in listed),
            NAME,
            "; rewards_from='tokens' or 'both' makes it read them" if sourced else "",
        )


def _find_shared_reading(estimator: credit.Estimator) -> Reading:
    way_out = f"let the functions return numbers and give the lists by log_extra({NAME!r}, rows)"
    return find_shared_reading(estimator, "reward functions return lists", way_out)


def _add_numbers(trainer: Any, rows: list[np.ndarray], listed: Tensor) -> None:
    """Adds the rewards that are numbers to each completion's rewards of tokens, on the policy's last one."""
    given = own_rows(trainer.accelerator, trainer.credit.rewards, len(rows)).cpu().double()
    sums = rewards.sum_rewards(given.masked_fill(listed, 0.0), trainer.reward_weights.cpu().double())
    sums = sums.nan_to_num(0.0, 0.0, 0.0)  # of a row whose reward is not finite, which takes no part
    for row, own, total in zip(rows, trainer.credit.generated.own, sums.tolist(), strict=True):
        if own.any():
            row[np.flatnonzero(own)[-1]] += total
