"""OpenRLHF's trainer of the critic, which runs in the critic's workers."""

from typing import Any

from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ray.ppo_critic import CriticPPOTrainer

from credit.adapters.hooks import check_functions
from credit.adapters.openrlhf import empty_batches, hooks

check_functions(hooks.FRAMEWORK, hooks.CRITIC_TRAINER)


class CreditCriticPPOTrainer(CriticPPOTrainer):
    """CriticPPOTrainer that takes micro-batches in which no response takes part."""

    def training_step(self, experience: Experience, step: int, loss_batch_info: Any = None) -> dict[str, Any]:
        empty_batches.bound_counts(self.replay_buffer, loss_batch_info)
        status: dict[str, Any] = super().training_step(experience, step, loss_batch_info)
        if not experience.action_mask.any():
            empty_batches.complete_means(status, vars(self).get("credit_status", {}))
        self.credit_status = dict(status)
        return status
