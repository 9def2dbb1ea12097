"""OpenRLHF's sampler, whose dynamic filter asks whether a prompt's scores differ."""

from typing import Any

import torch
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator

import credit
from credit.adapters.hooks import check_functions
from credit.adapters.openrlhf import extra, hooks

check_functions(hooks.FRAMEWORK, hooks.SAMPLES_GENERATOR)


class CreditSamplesGenerator(SamplesGenerator):
    """SamplesGenerator with DAPO's filter for scores of any kind, and the estimator's own if it has one.

    OpenRLHF keeps a prompt whose mean score lies within --algo.dynamic_filtering_range, which is DAPO's
    filter for scores of 0 and 1 only. Here a prompt to leave out gets NaN for scores: their mean lies
    within no range, so OpenRLHF draws another prompt at once.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.args.algo.dynamic_filtering_range = (-float("inf"), float("inf"))
        self.credit_group: list[Experience] | None = None

    def _generate_vllm(
        self, dataloader_iter: Any, num_prompts: int, dynamic_filtering: bool, **generate_kwargs: Any
    ) -> Any:
        self.credit_group = [] if dynamic_filtering else None
        return super()._generate_vllm(dataloader_iter, num_prompts, dynamic_filtering, **generate_kwargs)

    def _process_response_into_experience(self, response: Any, **generate_kwargs: Any) -> Experience:
        rows, plain = extra.take_rows(self.args.credit.estimator, response)
        experience = super()._process_response_into_experience(plain, **generate_kwargs)
        extra.keep_rows(experience, rows, sum(end - start for start, end in response["action_ranges"]))
        if self.credit_group is not None:
            self.credit_group.append(experience)
            if len(self.credit_group) == self.args.rollout.n_samples_per_prompt:
                group, self.credit_group = self.credit_group, []
                if not keeps_group(self.args.credit.estimator, group):
                    for each in group:
                        each.scores = torch.tensor([float("nan")])
        return experience


def keeps_group(estimator: credit.Estimator, group: list[Experience]) -> bool:
    """Whether the responses to a prompt stay: their scores differ, and the estimator keeps them all."""
    if any(experience.scores is None for experience in group):
        return True
    scores = torch.cat([experience.scores for experience in group]).float()
    ones = torch.ones(len(scores), 1, dtype=torch.bool)
    rollouts = credit.Rollouts(scores, torch.zeros(len(scores), dtype=torch.long), ones)
    return bool((credit.DAPO().keep(rollouts) & estimator.keep(rollouts)).all())
