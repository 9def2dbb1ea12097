"""OpenRLHF's sampler, whose dynamic filter asks whether a prompt's scores differ."""

from copy import copy
from typing import Any

import torch
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator

import credit
from credit.adapters.hooks import check_functions
from credit.adapters.openrlhf import extra, hooks
from credit.adapters.openrlhf.options import FILTER_RANGE

check_functions(hooks.FRAMEWORK, hooks.SAMPLES_GENERATOR)

ANY_MEAN = (-float("inf"), float("inf"))


class CreditSamplesGenerator(SamplesGenerator):
    """SamplesGenerator with DAPO's filter for scores of any kind, and the estimator's own if it has one.

    OpenRLHF keeps a prompt whose mean score lies within --algo.dynamic_filtering_range, which in its default
    is DAPO's filter for scores of 0 and 1 only. Here the default range lets every mean pass, another one
    leaves out prompts that are too hard or too easy, and besides, a prompt has to pass `keeps_group`: one
    that does not gets an empty range, so that OpenRLHF's own loop draws another prompt at once, logs the
    scores, and counts it in the pass rate.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        # A copy, since the range below changes from prompt to prompt.
        self.args: Any = copy(self.args)
        self.args.algo = copy(self.args.algo)
        given = tuple(self.args.algo.dynamic_filtering_range)
        self.credit_range = ANY_MEAN if given == FILTER_RANGE else given
        self.credit_group: list[Experience] | None = None

    def _generate_vllm(
        self, dataloader_iter: Any, num_prompts: int, dynamic_filtering: bool, **generate_kwargs: Any
    ) -> Any:
        self.credit_group = [] if dynamic_filtering else None
        return super()._generate_vllm(dataloader_iter, num_prompts, dynamic_filtering, **generate_kwargs)

    def _process_response_into_experience(self, response: Any, **generate_kwargs: Any) -> Experience:
        longest = generate_kwargs.get("max_len", 2048)  # OpenRLHF's default
        choice = self.args.credit
        rows, plain = extra.take_rows(choice.estimator, response, longest, every=bool(choice.record_steps))
        experience = super()._process_response_into_experience(plain, **generate_kwargs)
        extra.keep_rows(experience, rows, sum(end - start for start, end in response["action_ranges"]))
        if self.credit_group is not None:
            self.credit_group.append(experience)
            if len(self.credit_group) == self.args.rollout.n_samples_per_prompt:
                # OpenRLHF compares the mean score with the range after the last of the prompt's responses.
                self.args.algo.dynamic_filtering_range = self._choose_range(self.credit_group)
                self.credit_group = []
        return experience

    def _choose_range(self, group: list[Experience]) -> tuple[float, float]:
        if keeps_group(self.args.credit.estimator, group):
            return self.credit_range
        mean = float(sum(experience.scores[0].item() for experience in group)) / len(group)
        return mean, mean  # strictly between which is no score


def keeps_group(estimator: credit.Estimator, group: list[Experience]) -> bool:
    """Whether the responses to a prompt stay: their scores differ, and the estimator keeps them all."""
    if any(experience.scores is None for experience in group):
        return True
    scores = torch.cat([experience.scores for experience in group]).double()
    ones = torch.ones(len(scores), 1, dtype=torch.bool)
    rollouts = credit.Rollouts(scores, torch.zeros(len(scores), dtype=torch.long), ones)
    return bool((credit.DAPO().keep(rollouts) & estimator.keep(rollouts)).all())
