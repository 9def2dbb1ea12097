"""OpenRLHF's experience maker with advantages from an estimator; it runs in the trainer's process."""

from itertools import chain
from typing import Any

import ray
import torch
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker

from credit.adapters.estimator_report import report_estimator
from credit.adapters.hooks import check_functions
from credit.adapters.openrlhf import clipping, hooks, records, rollouts
from credit.adapters.openrlhf.length_penalties import apply_length_penalties
from credit.adapters.openrlhf.steps import Step

check_functions(hooks.FRAMEWORK, hooks.EXPERIENCE_MAKER)

ACTORS = "the actor's"  # checkpoint, unless --credit.reference names another


class CreditExperienceMaker(RemoteExperienceMaker):
    """RemoteExperienceMaker that asks the chosen estimator for its advantages."""

    credit_step: Step  # which the trainer says before it asks for experiences

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        choice = self.args.credit
        own = [("reference", choice.reference or ACTORS, ACTORS)] if choice.compares else []
        report_estimator(hooks.FRAMEWORK, choice.estimator, own, "from the models' logits")

    @torch.no_grad()
    def make_experience(self, samples_list: list[Experience]) -> list[Experience]:
        """OpenRLHF's experiences, each with its token statistics in the attribute `credit`."""
        experiences = super().make_experience(samples_list)
        taken = ray.get(self.actor_model_group.async_run_method("take_credit"))
        self.credit_progress = taken[0][1]
        if self.args.credit.statistics:
            # Workers return the micro-batches in the order in which they got them, as in OpenRLHF itself,
            # and those that share the tokens of rows or the weights of layers return the same.
            copies = self.args.ds.ring_attn_size * self.args.ds.tensor_parallel_size
            found = chain.from_iterable(statistics for statistics, _ in taken[::copies])
            for experience, fields in zip(experiences, found, strict=True):
                experience.credit = fields
        return experiences

    @torch.no_grad()
    def compute_advantages_and_returns(self, experiences: list[Experience]) -> list[Experience]:
        """Sets advantages, returns and info of every experience, after OpenRLHF's length penalties.

        Rewards are float32 or, where they came so, float64, as in OpenRLHF since 0.11.2.
        """
        for experience in experiences:
            kind = torch.promote_types(experience.rewards.dtype, torch.float32)
            experience.rewards = experience.rewards.to(kind)
        apply_length_penalties(experiences, self.args)
        fields = [vars(experience).pop("credit", {}) for experience in experiences]
        batch = rollouts.Batch(experiences, self.args.rollout.n_samples_per_prompt)
        choice = self.args.credit
        recorded = records.is_recording_step(self)
        given = batch.make_rollouts(choice.estimator, fields, self.credit_progress, every=recorded)
        assigned = clipping.assign_credit(choice.estimator, given, self.args.reward.clip_range)
        batch.write_back(assigned, batch.measure_statistics(fields))
        if recorded:
            records.write_records(self, batch, given, assigned.result)
        return experiences
