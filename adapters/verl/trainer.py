"""verl's V1 trainers with estimators of credit: settings are checked first, and tokens get statistics.

verl has no hook that sees the config before a trainer is built. PPOTrainer therefore gets a `__new__`,
which verl does not define: where the config names an estimator of credit, the trainer is built from a
subclass with `EstimatorMixin`; for every other config it returns an instance of the class that was asked for.
"""

from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import ray
import torch
from omegaconf import DictConfig, open_dict
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1 import PPOTrainer, PPOTrainerColocateAsync, PPOTrainerSync, register_trainer
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.import_utils import import_external_libs
from verl.workers.utils import padding

import credit
from credit.adapters.hooks import check_functions
from credit.adapters.verl import extra, hooks, options, registry, rollouts, settings, statistics
from credit.adapters.verl.extra import fetch_fields, pad_nested
from credit.adapters.verl.worker import MEMORY, REQUEST, CreditWorker

check_functions(hooks.FRAMEWORK, hooks.TRAINER)

# To a type checker the mixin has the attributes of the trainer that it is listed before.
Trainer: Any = PPOTrainer if TYPE_CHECKING else object

Tensor = torch.Tensor


class EstimatorMixin(Trainer):
    """Checks the config when the trainer is built, and gives the estimator what verl's call leaves out.

    List it before one of verl's V1 trainers.
    """

    computes_statistics: ClassVar[bool] = False

    def __init__(self, config: Any, *positional: Any, **named: Any) -> None:
        self.credit_choice = _validate_config(config, self.computes_statistics)
        super().__init__(config, *positional, **named)

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        fields = self._collect_fields(batch)
        fields |= extra.collect_arrays(self.credit_choice.estimator, batch)
        context = rollouts.StepContext(batch.keys, extra.list_padding(batch), fields, self.credit_choice)
        with rollouts.step_context(context) as step:
            batch = super()._compute_advantage(batch, metrics)
        metrics.update(step.metrics)
        return batch

    def _collect_fields(self, batch: Any) -> dict[str, Tensor]:
        """The optional fields of Rollouts that the trainer knows of."""
        fields = {"progress": torch.tensor(self.global_steps / self.total_training_steps)}
        if "rollout_log_probs" in self.credit_choice.estimator.required_fields:
            name = "rollout_log_probs"
            fields[name] = pad_nested(fetch_fields(batch, name)[name])
        entropy = fetch_fields(batch, "entropy")  # which verl's bypass mode does not compute
        if "entropy" in entropy:
            fields["extra.entropy"] = pad_nested(entropy["entropy"]).float()
        if self.credit_choice.token_rewards == "turn_scores":
            fields["token_rewards"] = extra.collect_turn_scores(batch)
        return fields


class CreditMixin(EstimatorMixin):
    """Computes the statistics that an estimator needs; list it before one of verl's V1 trainers.

    In the pass for the old log-probs the reference sees each micro-batch right after the policy, in
    the same layout; that forward is all the extra cost. With LoRA the reference is the policy
    without its adapter. `base_mode` is the trainer mode of the verl trainer that it extends.
    """

    computes_statistics = True
    base_mode: ClassVar[str] = "sync"

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
        worker = self.role_worker_mapping.pop(role)
        if self.credit_choice.reference and not options.uses_lora(self.config.actor_rollout_ref):
            role = Role.ActorRolloutRef
        exact = self.credit_choice.statistics and self.credit_choice.divergence == "exact"
        self.role_worker_mapping[role] = ray.remote(CreditWorker) if exact else worker
        self.mapping[role] = pool

    def _compute_old_log_prob(self, batch: Any, metrics: dict[str, Any]) -> Any:
        if self.credit_choice.divergence == "binary" or not self.credit_choice.statistics:
            return super()._compute_old_log_prob(batch, metrics)
        batch.extra_info[REQUEST] = " ".join(self.credit_choice.scored)
        batch.extra_info[MEMORY] = self.credit_choice.statistics_memory_mb
        result = super()._compute_old_log_prob(batch, metrics)
        for each in (batch, result):
            for key in (REQUEST, MEMORY):
                each.extra_info.pop(key, None)
        return result

    def _collect_fields(self, batch: Any) -> dict[str, Tensor]:
        return super()._collect_fields(batch) | self._collect_statistics(batch)

    def _collect_statistics(self, batch: Any) -> dict[str, Tensor]:
        """The needed statistics [N, T] of the batch."""
        if not self.credit_choice.statistics:
            return {}
        if self.credit_choice.divergence == "binary":
            return self._estimate_statistics(batch)
        names = {statistics.KEY + name: name for name in self.credit_choice.scored}
        data = fetch_fields(batch, *names, "response_mask")
        mask = data["response_mask"]
        return {
            name: pad_nested(padding.response_from_nested(data[key], mask)) for key, name in names.items()
        }

    def _estimate_statistics(self, batch: Any) -> dict[str, Tensor]:
        """The statistics as far as verl's own passes give them: from log-probs of the sampled tokens."""
        needs = self.credit_choice.statistics
        entropy = ("entropy",) if "normalized_entropy" in needs else ()
        data = fetch_fields(batch, "old_log_probs", "ref_log_prob", *entropy)
        log_probs, reference_log_probs = pad_nested(data["old_log_probs"]), pad_nested(data["ref_log_prob"])
        fields = {
            "log_probs": log_probs,
            "reference_log_probs": reference_log_probs,
            "deviation": credit.binary_deviation(log_probs, reference_log_probs),
        }
        if entropy:
            size = torch.tensor(float(self._vocabulary_size))
            fields["normalized_entropy"] = (pad_nested(data["entropy"]).float() / size.log()).clamp(0.0, 1.0)
        return {name: fields[name] for name in needs if name in fields}

    @cached_property
    def _vocabulary_size(self) -> int:
        model = omega_conf_to_dataclass(self.config.actor_rollout_ref.model)
        return int(model.hf_config.get_text_config().vocab_size)


@register_trainer("credit_sync")
class CreditTrainerSync(CreditMixin, PPOTrainerSync):
    """verl's default trainer with token statistics: trainer.v1.trainer_mode=credit_sync"""


@register_trainer("credit_colocate_async")
class CreditTrainerColocateAsync(CreditMixin, PPOTrainerColocateAsync):
    """The same with partial rollouts: trainer.v1.trainer_mode=credit_colocate_async"""

    base_mode = "colocate_async"


def _new_trainer(kind: Any, config: Any = None, *_: Any, **__: Any) -> Any:
    """PPOTrainer.__new__, which adds EstimatorMixin if the config names an estimator of credit."""
    if not issubclass(kind, EstimatorMixin) and _names_credit(config):
        kind = _with_estimator(kind)
    return object.__new__(kind)


@cache
def _with_estimator(kind: type[Any]) -> type[Any]:
    return type(f"Credit{kind.__name__}", (EstimatorMixin, kind), {"__doc__": kind.__doc__})


def _names_credit(config: Any) -> bool:
    """Whether the config names an estimator of credit; raises ValueError if it only tries to."""
    if not isinstance(config, DictConfig) or "algorithm" not in config:
        return False
    algorithm = config.algorithm
    if settings.is_ours(algorithm.get("adv_estimator")):
        return True
    if settings.is_misnamed(algorithm, core_algos.ADV_ESTIMATOR_REGISTRY):
        import_external_libs(config.actor_rollout_ref.model.get("external_lib"))  # may define the name
    settings.refuse_misplaced_settings(algorithm, core_algos.ADV_ESTIMATOR_REGISTRY)
    return False


def _validate_config(config: Any, computes_statistics: bool) -> settings.Choice:
    """The estimator that the config names; ValueError for what cannot work, before anything is loaded."""
    algorithm, mode = config.algorithm, config.trainer.v1.trainer_mode
    import_external_libs(config.actor_rollout_ref.model.get("external_lib"))  # may define an estimator
    registry.register_estimators()
    if not settings.is_ours(algorithm.adv_estimator):
        settings.refuse_misplaced_settings(algorithm, core_algos.ADV_ESTIMATOR_REGISTRY)
        raise ValueError(
            f"trainer_mode=credit_{mode} needs an estimator of credit, and algorithm.adv_estimator="
            f"{algorithm.adv_estimator} is not one; set it to one of {settings.list_names()}"
        )
    choice = settings.parse_settings(algorithm)
    options.refuse(choice, config, mode, computes_statistics)
    options.report_differences(choice, config)
    return choice


PPOTrainer.__new__ = staticmethod(_new_trainer)
