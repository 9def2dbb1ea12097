"""verl's V1 trainers with estimators of credit: settings checked first, statistics of every token."""

from collections.abc import Callable
from functools import cached_property, wraps
from typing import Any

import ray
import torch
import transfer_queue as tq
from omegaconf import open_dict
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1 import PPOTrainer, PPOTrainerColocateAsync, PPOTrainerSync, register_trainer
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.import_utils import import_external_libs
from verl.workers.utils import padding

import credit
from credit.adapters import hooks
from credit.adapters.verl import options, rollouts, settings, statistics
from credit.adapters.verl.worker import REQUEST, CreditWorker

hooks.check_signature("verl", PPOTrainer, "__init__", "self", "config")
hooks.check_signature("verl", PPOTrainer, "_init_resource_pool_mgr", "self")
hooks.check_signature("verl", PPOTrainer, "_compute_old_log_prob", "self", "batch", "metrics")
hooks.check_signature("verl", PPOTrainer, "_compute_advantage", "self", "batch", "metrics")
hooks.check_signature("verl", padding, "response_from_nested", "tensor", "response_mask")

Tensor = torch.Tensor


class CreditMixin:
    """Computes the statistics that an estimator needs; list it before one of verl's V1 trainers.

    In the pass for the old log-probs the reference sees each micro-batch right after the policy, in
    the same layout; that forward is all the extra cost. With LoRA the reference is the policy
    without its adapter. `base_mode` is the trainer mode of the verl trainer that it extends.
    """

    base_mode = "sync"

    def __init__(self, config: Any) -> None:
        with open_dict(config):  # verl's trainers branch on the literal names of their own modes
            config.trainer.v1.trainer_mode = self.base_mode
        super().__init__(config)
        if self.credit_choice.divergence == "binary" and self.credit_choice.reference:
            self.use_reference_policy = True  # verl's own pass for the reference's log-probs

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        (role,) = {Role.ActorRollout, Role.ActorRolloutRef} & set(self.role_worker_mapping)
        pool = self.mapping.pop(role)
        del self.role_worker_mapping[role]
        if self.credit_choice.reference and not options.uses_lora(self.config.actor_rollout_ref):
            role = Role.ActorRolloutRef
        self.role_worker_mapping[role] = ray.remote(CreditWorker)
        self.mapping[role] = pool

    def _compute_old_log_prob(self, batch: Any, metrics: dict) -> Any:
        if self.credit_choice.divergence == "binary" or not self.credit_choice.statistics:
            return super()._compute_old_log_prob(batch, metrics)
        batch.extra_info[REQUEST] = " ".join(self.credit_choice.statistics)
        result = super()._compute_old_log_prob(batch, metrics)
        for each in (batch, result):
            each.extra_info.pop(REQUEST, None)
        return result

    def _credit_statistics(self, batch: Any) -> dict[str, Tensor]:
        """The needed statistics [N, T] of the batch."""
        if not self.credit_choice.statistics:
            return {}
        if self.credit_choice.divergence == "binary":
            return self._statistics_of_samples(batch)
        names = {statistics.KEY + name: name for name in self.credit_choice.statistics}
        data = _fetch_fields(batch, *names, "response_mask")
        mask = data["response_mask"]
        return {
            name: _pad_nested(padding.response_from_nested(data[key], mask)) for key, name in names.items()
        }

    def _statistics_of_samples(self, batch: Any) -> dict[str, Tensor]:
        """What verl's own passes give: log-probs of the sampled tokens, and the policy's entropy."""
        needs = self.credit_choice.statistics
        entropy = ("entropy",) if "normalized_entropy" in needs else ()
        data = _fetch_fields(batch, "old_log_probs", "ref_log_prob", *entropy)
        log_probs, reference_log_probs = _pad_nested(data["old_log_probs"]), _pad_nested(data["ref_log_prob"])
        fields = {
            "log_probs": log_probs,
            "reference_log_probs": reference_log_probs,
            "deviation": credit.binary_deviation(log_probs, reference_log_probs),
        }
        if entropy:
            size = torch.tensor(float(self._vocabulary_size))
            fields["normalized_entropy"] = (_pad_nested(data["entropy"]).float() / size.log()).clamp(0.0, 1.0)
        return {name: fields[name] for name in needs}

    @cached_property
    def _vocabulary_size(self) -> int:
        model = omega_conf_to_dataclass(self.config.actor_rollout_ref.model)
        return model.hf_config.get_text_config().vocab_size


@register_trainer("credit_sync")
class CreditTrainerSync(CreditMixin, PPOTrainerSync):
    """verl's default trainer with token statistics: trainer.v1.trainer_mode=credit_sync"""


@register_trainer("credit_colocate_async")
class CreditTrainerColocateAsync(CreditMixin, PPOTrainerColocateAsync):
    """The same with partial rollouts: trainer.v1.trainer_mode=credit_colocate_async"""

    base_mode = "colocate_async"


def _with_validated_config(init: Callable[..., None]) -> Callable[..., None]:
    """PPOTrainer.__init__ that first checks an estimator of credit, which verl would do after a rollout."""

    @wraps(init)
    def checked(self: Any, config: Any) -> None:
        self.credit_choice = _validate_config(config, isinstance(self, CreditMixin))
        init(self, config)

    return checked


def _validate_config(config: Any, scores_tokens: bool) -> settings.Choice | None:
    algorithm, mode = config.algorithm, config.trainer.v1.trainer_mode
    import_external_libs(config.actor_rollout_ref.model.get("external_lib"))  # may define an estimator
    rollouts.register_estimators()
    if settings.is_ours(algorithm.adv_estimator):
        choice = settings.parse_settings(algorithm)
        options.refuse(choice, config, mode, scores_tokens)
        options.report_differences(choice, config)
        return choice
    settings.refuse_misplaced_settings(algorithm, core_algos.ADV_ESTIMATOR_REGISTRY)
    if scores_tokens:
        raise ValueError(
            f"trainer_mode=credit_{mode} needs an estimator of credit, and algorithm.adv_estimator="
            f"{algorithm.adv_estimator} is not one; set it to one of "
            f"{', '.join(settings.PREFIX + name for name in credit.names())}"
        )
    return None


def _with_step_context(compute: Callable[..., Any]) -> Callable[..., Any]:
    """PPOTrainer._compute_advantage that gives our estimators what verl's call leaves out."""

    @wraps(compute)
    def accompanied(self: Any, batch: Any, metrics: dict) -> Any:
        if self.credit_choice is None:
            return compute(self, batch, metrics)
        made_up = [bool(tag.get("is_padding", False)) for tag in batch.tags]
        fields = self._credit_statistics(batch) if isinstance(self, CreditMixin) else {}
        fields["progress"] = torch.tensor(self.global_steps / self.total_training_steps)
        if "rollout_log_probs" in self.credit_choice.estimator.needs:
            fields["rollout_log_probs"] = _pad_nested(
                _fetch_fields(batch, "rollout_log_probs")["rollout_log_probs"]
            )
        with rollouts.step_context(rollouts.StepContext(batch.keys, made_up, fields)) as step:
            batch = compute(self, batch, metrics)
        metrics.update(step.metrics)
        return batch

    return accompanied


def _fetch_fields(batch: Any, *names: str) -> Any:
    return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(names))


def _pad_nested(nested: Tensor) -> Tensor:
    return nested.to_padded_tensor(0.0)


# verl has no hook for either, and all of its V1 trainers pass through both.
PPOTrainer.__init__ = _with_validated_config(PPOTrainer.__init__)
PPOTrainer._compute_advantage = _with_step_context(PPOTrainer._compute_advantage)
