"""verl's V1 trainers with estimators of credit: settings are checked first, and tokens get statistics.

verl has no hook that sees the config before a trainer is built. PPOTrainer therefore gets a `__new__`,
which verl does not define: where the config names an estimator of credit, the trainer is built from a
subclass with `EstimatorMixin`; for every other config it returns an instance of the class that was asked for.
"""

from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

import ray
import torch
from omegaconf import open_dict
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1 import (
    PPOTrainer,
    PPOTrainerColocateAsync,
    PPOTrainerSeparateAsync,
    PPOTrainerSync,
    register_trainer,
)
from verl.workers.utils import padding

from credit.adapters.hooks import check_functions
from credit.adapters.verl import checks, extra, hooks, invalid_rows, passes, records, rollouts, sources
from credit.adapters.verl.extra import fetch_fields, pad_nested
from credit.adapters.verl.logits_hook import KEY
from credit.adapters.verl.worker import MEMORY, REQUEST, CreditDetachWorker, CreditWorker

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
        mode = sources.find_v1_mode(config.trainer.v1.trainer_mode, self.computes_statistics)
        self.credit_choice = checks.check_config(config, mode)
        checks.report(self.credit_choice, config)
        super().__init__(config, *positional, **named)

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        fields = self._collect_fields(batch)
        fields |= extra.collect_arrays(self.credit_choice.estimator, batch)
        mask = pad_nested(fetch_fields(batch, "response_mask")["response_mask"])
        padding = extra.list_padding(batch)
        context = rollouts.StepContext(batch.keys, padding, fields, self.credit_choice, mask)
        with rollouts.step_context(context) as step:
            batch = super()._compute_advantage(batch, metrics)
        metrics.update(step.metrics)
        outcome = rollouts.take_outcome()
        if outcome is not None and self._is_recording():
            records.write_records(self, self.credit_choice, outcome, partial(records.fetch_ids, batch))
        if step.valid is not None:
            aggregation = self.config.actor_rollout_ref.actor.loss_agg_mode
            invalid_rows.leave_queue(batch, step.valid, ~torch.tensor(padding), aggregation)
        return batch

    def _is_recording(self) -> bool:
        """Whether the batch is the first of its step, and the step's completions are recorded."""
        return self.credit_choice.is_recording_step(self.global_steps) and self.local_trigger_step == 0

    def _collect_fields(self, batch: Any) -> dict[str, Tensor]:
        """The optional fields of Rollouts that the trainer knows of."""
        choice = self.credit_choice
        fields = {"progress": torch.tensor(self.global_steps / self.total_training_steps)}
        if "rollout_log_probs" in choice.estimator.required_fields:
            name = "rollout_log_probs"
            fields[name] = pad_nested(fetch_fields(batch, name)[name])
        if choice.token_rewards != "token_level_rewards":
            fields["token_rewards"] = extra.collect_turn_scores(batch, choice.token_rewards)
        elif {"token_rewards", "turns"} <= set(choice.estimator.required_fields):
            extra.report_unread_scores(choice.estimator, batch)
        if choice.reward_keys:
            fields["rewards"] = extra.collect_rewards(choice.estimator, choice.reward_keys, batch)
        return fields | self._collect_from_passes(batch)

    def _collect_from_passes(self, batch: Any) -> dict[str, Tensor]:
        """What verl's own passes computed [N, T]: the entropy, and the statistics that follow from them."""
        handed = self.credit_choice.handed if self.credit_choice.source == "passes" else ()
        needs = (*handed, *(passes.SHOWN if self._is_recording() else ()))
        names = passes.FIELDS if needs else ("entropy",)
        arrays = {name: pad_nested(array).float() for name, array in fetch_fields(batch, *names).items()}
        # verl's bypass mode computes no entropy.
        fields = {"extra.entropy": arrays["entropy"]} if "entropy" in arrays else {}
        if needs:
            fields |= passes.derive_statistics(arrays, needs, self._vocabulary_size)
        return fields

    @cached_property
    def _vocabulary_size(self) -> int:
        return passes.read_vocabulary_size(self.config)


class CreditMixin(EstimatorMixin):
    """Computes the statistics that an estimator needs; list it before one of verl's V1 trainers.

    In the pass for the old log-probs the reference sees each micro-batch right after the policy, in
    the same layout; that forward is all the extra cost. With LoRA the reference is the policy
    without its adapter. `base_mode` is the trainer mode of the verl trainer that it extends, and
    `worker` its worker with statistics.
    """

    computes_statistics = True
    base_mode: ClassVar[str] = "sync"
    worker: ClassVar[type[Any]] = CreditWorker

    def __init__(self, config: Any) -> None:
        with open_dict(config):  # verl's trainers branch on the literal names of their own modes
            config.trainer.v1.trainer_mode = self.base_mode
        super().__init__(config)
        if self.credit_choice.source == "passes" and self.credit_choice.reference:
            self.use_reference_policy = True  # verl's own pass for the reference's log-probs

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        (role,) = {Role.Actor, Role.ActorRollout, Role.ActorRolloutRef} & set(self.role_worker_mapping)
        pool, worker = self.mapping.pop(role), self.role_worker_mapping.pop(role)
        if self.credit_choice.source == "workers":
            worker = ray.remote(self.worker)
        roles = [role]
        if sources.runs_reference(self.credit_choice, self.config):
            # Without its hybrid engine separate_async has a worker for each model.
            roles = [Role.Actor, Role.RefPolicy] if role == Role.Actor else [Role.ActorRolloutRef]
        self.role_worker_mapping |= dict.fromkeys(roles, worker)
        self.mapping |= dict.fromkeys(roles, pool)

    def _compute_old_log_prob(self, batch: Any, metrics: dict[str, Any]) -> Any:
        if self.credit_choice.source != "workers":
            return super()._compute_old_log_prob(batch, metrics)
        batch.extra_info[REQUEST] = " ".join(self.credit_choice.list_scored(self._is_recording()))
        if self.credit_choice.statistics_memory_mb is not None:
            batch.extra_info[MEMORY] = self.credit_choice.statistics_memory_mb
        result = super()._compute_old_log_prob(batch, metrics)
        for each in (batch, result):
            for key in (REQUEST, MEMORY):
                each.extra_info.pop(key, None)
        return result

    def _collect_fields(self, batch: Any) -> dict[str, Tensor]:
        fields = super()._collect_fields(batch)
        if self.credit_choice.source != "workers":
            return fields
        names = {KEY + name: name for name in self.credit_choice.list_scored(self._is_recording())}
        data = fetch_fields(batch, *names, "response_mask")
        mask = data["response_mask"]
        return fields | {
            name: pad_nested(padding.response_from_nested(data[key], mask)) for key, name in names.items()
        }


@register_trainer("credit_sync")
class CreditTrainerSync(CreditMixin, PPOTrainerSync):
    """verl's default trainer with token statistics: trainer.v1.trainer_mode=credit_sync"""


@register_trainer("credit_colocate_async")
class CreditTrainerColocateAsync(CreditMixin, PPOTrainerColocateAsync):
    """The same with partial rollouts: trainer.v1.trainer_mode=credit_colocate_async"""

    base_mode = "colocate_async"


@register_trainer("credit_separate_async")
class CreditTrainerSeparateAsync(CreditMixin, PPOTrainerSeparateAsync):
    """The same with rollouts on GPUs of their own: trainer.v1.trainer_mode=credit_separate_async"""

    base_mode = "separate_async"
    worker = CreditDetachWorker


def _new_trainer(kind: Any, config: Any = None, *_: Any, **__: Any) -> Any:
    """PPOTrainer.__new__, which adds EstimatorMixin if the config names an estimator of credit."""
    if not issubclass(kind, EstimatorMixin) and checks.names_credit(config):
        kind = _with_estimator(kind)
    return object.__new__(kind)


@cache
def _with_estimator(kind: type[Any]) -> type[Any]:
    return type(f"Credit{kind.__name__}", (EstimatorMixin, kind), {"__doc__": kind.__doc__})


PPOTrainer.__new__ = staticmethod(_new_trainer)
