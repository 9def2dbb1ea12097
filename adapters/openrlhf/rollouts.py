"""From OpenRLHF's experiences, padded micro-batches, to one batch of rollouts, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

import credit
from credit.adapters.fields import LOGGED, STATISTICS, measure_logged
from credit.adapters.openrlhf import extra, invalid_rows
from credit.adapters.openrlhf.clipping import Assigned
from credit.adapters.readings import NAME
from credit.fields import replace_arrays

Tensor = torch.Tensor
LOG_PROBS = {"log_probs": "action_log_probs", "reference_log_probs": "base_action_log_probs"}
"""What OpenRLHF's experiences call the log-probs that its own passes leave."""


class Batch:
    """The action tokens of all experiences, aligned to the left: [N, T] for N responses of at most T.

    OpenRLHF's masks [B, A] also cover prompts, padding and the environment's turns. `groups` [N] holds
    the prompts' numbers, since OpenRLHF numbers all samples consecutively, n per prompt. `valid` [N] are
    the responses that take part.
    """

    def __init__(self, experiences: Sequence[Any], samples_per_prompt: int) -> None:
        self.experiences = experiences
        self.masks = [experience.action_mask.bool() for experience in experiences]
        self.lengths = torch.cat([mask.sum(dim=1) for mask in self.masks])
        width = max(int(self.lengths.max()), 1)
        self.mask = torch.arange(width) < self.lengths[:, None]
        index = torch.tensor([sample for experience in experiences for sample in experience.index])
        self.groups = index // samples_per_prompt
        self.rewards = torch.cat([experience.rewards for experience in experiences])
        self.valid = invalid_rows.find_valid(self.rewards, self.lengths)

    def align(self, values: Sequence[Tensor]) -> Tensor:
        """[N, T] from the experiences' [B, A]."""
        flat = torch.cat([each[mask] for each, mask in zip(values, self.masks, strict=True)])
        whole = torch.zeros(self.mask.shape, dtype=flat.dtype)
        whole[self.mask] = flat
        return whole

    def part(self, values: Tensor) -> list[Tensor]:
        """The experiences' [B, A] of [N, T], with 0 outside their masks."""
        flat = values[self.mask].split([int(mask.sum()) for mask in self.masks])
        whole = [torch.zeros(mask.shape, dtype=values.dtype) for mask in self.masks]
        return [each.masked_scatter(m, own) for each, m, own in zip(whole, self.masks, flat, strict=True)]

    def make_rollouts(
        self,
        estimator: credit.Estimator,
        statistics: Sequence[Mapping[str, Tensor]],
        progress: float,
        every: bool,
    ) -> credit.Rollouts:
        """Rollouts with the optional fields that the estimator reads, and what a metric is computed from.

        With `every` they have all that is known and credit.lens shows.
        """
        fields = self._find_known(estimator, statistics, every)
        if every:
            fields["progress"] = torch.tensor(progress)
        fields |= extra.take_arrays(estimator, self.experiences, self.lengths, self.mask.shape[1])
        for name in estimator.required_fields:
            if name == "progress":
                fields[name] = torch.tensor(progress)
            elif name == "rollout_log_probs":
                fields[name] = self.align([e.rollout_log_probs for e in self.experiences])
            elif name == "extra.token_ids":
                # The mask's first column is that of the second token.
                fields[name] = self.align([e.sequences[:, 1:] for e in self.experiences])
            elif name == "extra.values":
                fields[name] = self.align([e.values for e in self.experiences])
            elif name in STATISTICS:
                fields[name] = self.align([each[name] for each in statistics])
        if NAME in fields:  # one that is not finite says as little of its row as a reward
            self.valid = self.valid & fields[NAME].isfinite().all(dim=1)
        rollouts = credit.Rollouts(self.rewards, self.groups, self.mask, valid=self.valid)
        return replace_arrays(rollouts, fields)

    def _find_known(
        self, estimator: credit.Estimator, statistics: Sequence[Mapping[str, Tensor]], every: bool
    ) -> dict[str, Tensor]:
        """What the estimator does not read: both log-probs if known; with `every` all that is known."""
        found = {
            name: [getattr(experience, theirs) for experience in self.experiences]
            for name, theirs in LOG_PROBS.items()
            if getattr(self.experiences[0], theirs) is not None
        }
        # The workers' own come last, since --credit.reference may name another reference than OpenRLHF's.
        shown = [name for name in credit.TokenStatistics._fields if name in statistics[0]]
        found |= {name: [each[name] for each in statistics] for name in shown}
        compared = LOG_PROBS if found.keys() >= LOG_PROBS.keys() else {}
        names = (found if every else compared).keys() - set(estimator.required_fields)
        return {name: self.align(found[name]) for name in names}

    def measure_statistics(self, statistics: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The metrics of the logged statistics over the tokens of valid rows."""
        seen = self.mask & self.valid[:, None]
        logged = [name for name in LOGGED if name in statistics[0]]
        return measure_logged(
            {name: self.align([each[name] for each in statistics]) for name in logged}, seen
        )

    def write_back(self, assigned: Assigned, measured: dict[str, Tensor]) -> None:
        """Writes advantages and returns to the experiences, and what OpenRLHF logs to their info, each [B].

        `measured` are further metrics than the estimator's. Rows that are not valid leave OpenRLHF's loss and
        the means of its log.
        """
        rows = [len(mask) for mask in self.masks]
        # They are float64 for float64 rewards, which no model trains in.
        advantages = assigned.result.advantages.float()
        mean = (advantages.sum(dim=1) / self.lengths.clamp(min=1)).split(rows)
        spread = credit.groups.std(self.rewards, self.groups, self.valid, correction=1).split(rows)
        own, targets = self.part(advantages), self.part(assigned.returns.float())
        for i, experience in enumerate(self.experiences):
            experience.advantages, experience.returns = own[i], targets[i]
            experience.kl = None
            experience.info |= {"return": mean[i], "group_reward_std": spread[i]}
            for name, value in (assigned.result.metrics | measured).items():
                experience.info[f"credit/{name}"] = value.float().repeat(rows[i])
        invalid_rows.leave_loss(self.experiences, self.valid)
        invalid_rows.leave_means(self.experiences, self.valid)
