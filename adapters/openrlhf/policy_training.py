"""OpenRLHF's trainer of the policy, which runs in the policy's workers."""

from typing import Any

from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ray.ppo_actor import ActorPPOTrainer

from credit.adapters.hooks import check_functions
from credit.adapters.openrlhf import empty_batches, hooks

check_functions(hooks.FRAMEWORK, hooks.POLICY_TRAINER)


class CreditActorPPOTrainer(ActorPPOTrainer):
    """ActorPPOTrainer that takes micro-batches in which no response takes part."""

    def training_step(
        self, experience: Experience, kl_ctl: float, step: int, loss_batch_info: Any = None
    ) -> dict[str, Any]:
        empty_batches.bound_counts(self.replay_buffer, loss_batch_info)
        status: dict[str, Any] = super().training_step(experience, kl_ctl, step, loss_batch_info)
        empty_batches.complete_status(status)
        return status
