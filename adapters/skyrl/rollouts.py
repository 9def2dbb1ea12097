"""From SkyRL's batch to the rollouts that an estimator takes, and back."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

import credit
from credit.adapters import readings
from credit.adapters.fields import STATISTICS
from credit.adapters.skyrl import extra
from credit.fields import replace_arrays

Tensor = torch.Tensor
TOKEN_REWARDS = readings.NAME


class Batch:
    """The rows of SkyRL's batch, without those that it adds so that its workers get as many each.

    SkyRL's arrays [N, T] of responses end with a common column, and the mask of its loss leaves out the
    output of tools, which its response_mask has.
    """

    def __init__(self, data: Any) -> None:
        self.data = data
        self.count = len(data["rewards"]) - data.metadata.get("pad_size", 0)
        self.mask = self.take("loss_mask") > 0

    def take(self, name: str) -> Tensor:
        """SkyRL's array of that name, without rows that it added."""
        array: Tensor = self.data[name]
        return array[: self.count]

    def pad(self, values: Tensor) -> Tensor:
        """The values [n, T] as float32 of all of SkyRL's rows [N, T], with 0 in those that it added."""
        whole = values.new_zeros(self.data["rewards"].shape, dtype=torch.float32)
        whole[: self.count] = values.float()
        return whole

    def find_groups(self) -> Tensor:
        """The number [n] of each row's prompt."""
        uids = np.asarray(self.data.metadata["uids"][: self.count])
        return torch.from_numpy(np.unique(uids, return_inverse=True)[1])

    def find_last(self) -> list[int]:
        """For each row [n] the one with the last step of its trajectory; without steps, the row itself."""
        ends = self.data.metadata.get("is_last_step")
        if ends is None:
            return list(range(self.count))
        last, found = self.count - 1, [0] * self.count
        for row in reversed(range(self.count)):
            last = row if ends[row] else last
            found[row] = last
        return found


def make_rollouts(
    estimator: credit.Estimator, batch: Batch, statistics: Mapping[str, Tensor], progress: float
) -> credit.Rollouts:
    """The rollouts with the optional fields that the estimator reads, of which statistics are [N, T]."""
    needs, data = estimator.required_fields, batch.data
    total, of_tokens = _split_rewards(estimator, batch)
    fields: dict[str, Tensor] = {
        name: statistics[name][: batch.count] for name in needs if name in STATISTICS
    }
    if TOKEN_REWARDS in needs:
        fields[TOKEN_REWARDS] = of_tokens
    if "turns" in needs:
        fields["turns"] = credit.tokens.turns(batch.mask)
    if "progress" in needs:
        fields["progress"] = torch.tensor(progress)
    if "rollout_log_probs" in needs:
        fields["rollout_log_probs"] = _take_recorded(estimator, batch)
    if "extra.token_ids" in needs:
        fields["extra.token_ids"] = batch.take("sequences")[:, -batch.mask.shape[1] :]
    if "extra.values" in needs:
        fields["extra.values"] = batch.take("values")
    given = data.metadata.get(extra.KEY, {})
    fields |= extra.make_arrays(given, batch.take("response_mask"))
    return replace_arrays(credit.Rollouts(total, batch.find_groups(), batch.mask), fields)


def find_reading(estimator: credit.Estimator) -> readings.Reading:
    """What the estimator takes `rewards` for, beside the rewards that SkyRL has on tokens.

    Raises:
        ValueError: the parts of a mix read them differently.
    """
    if TOKEN_REWARDS not in estimator.required_fields:
        return "total"
    return readings.find_shared_reading(
        estimator, "SkyRL hands over all rewards on tokens", "use one of the parts alone"
    )


def _take_recorded(estimator: credit.Estimator, batch: Batch) -> Tensor:
    if batch.data["rollout_logprobs"] is None:
        raise ValueError(
            f"{estimator.name} needs rollout_log_probs, and the generator returned none with these "
            "responses; let it return rollout_logprobs"
        )
    return batch.take("rollout_logprobs")


def _split_rewards(estimator: credit.Estimator, batch: Batch) -> tuple[Tensor, Tensor]:
    """The rewards [n], and those of tokens [n, T], as the estimator reads them.

    SkyRL has all rewards on tokens, those of a turn at its end. Where an estimator adds rewards of tokens to
    the outcome, the outcome is what the last turn earned, and the tokens have the rest.
    """
    every = move_into(batch.take("rewards"), batch.mask)
    total = batch.take("rewards").sum(dim=-1)
    if find_reading(estimator) != "outcome":
        return total, every
    turns = credit.tokens.turns(batch.mask)
    final = batch.mask & (turns == turns.amax(dim=1, keepdim=True))
    outcome = torch.where(final, every, 0.0).sum(dim=-1)
    # A row whose tokens are all masked has no last turn, and counts in its group with what it earned.
    outcome = torch.where(batch.mask.any(dim=1), outcome, total)
    return outcome, torch.where(final, 0.0, every)


def move_into(rewards: Tensor, mask: Tensor) -> Tensor:
    """The rewards [n, T] with those outside the mask on the policy's token before them, or its first one.

    SkyRL puts the reward of a turn on its end token, which is outside the mask where SkyRL itself added it. A
    row without a token keeps none.
    """
    places = torch.arange(mask.shape[1]).expand_as(mask)
    before = torch.where(mask, places, -1).cummax(dim=1).values
    first = mask.int().argmax(dim=1, keepdim=True)
    target = torch.where(before < 0, first, before)
    return torch.zeros_like(rewards).scatter_add(1, target, rewards).where(mask, 0.0)
