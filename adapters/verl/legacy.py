"""verl's trainers before V1: RayPPOTrainer, one_step_off_policy and fully_async_policy.

They share no method that sees the config before a rollout: some do not call the constructor of their base.
All of them set `self.config`, so RayPPOTrainer gets `config` as an attribute that is checked when it is set.
"""

from collections.abc import Callable
from functools import cache, partial, wraps
from typing import Any

import torch
from verl.trainer.ppo.ray_trainer import RayPPOTrainer

from credit.adapters.hooks import check_functions
from credit.adapters.verl import (
    checks,
    hooks,
    invalid_rows,
    passes,
    records,
    rewards,
    rollouts,
    settings,
    sources,
)

check_functions(hooks.FRAMEWORK, hooks.LEGACY)

Tensor = torch.Tensor
PASSES = ("_compute_old_log_prob", "_compute_ref_log_prob")
UPDATES = ("_update_actor", "_update_critic")
NAMES = {"RayPPOTrainer": "trainer.use_v1=False"}
V1 = "trainer.use_v1=True trainer.v1.trainer_mode="


class CheckedConfig:
    """The attribute `config`: if it names an estimator of credit, it is checked when it is set."""

    def __set__(self, trainer: Any, config: Any) -> None:
        _forget_passes(trainer)
        if checks.names_credit(config):
            kind = find_verls(type(trainer)).__name__
            choice = check_config(config, find_mode(kind))
            _keep_passes(trainer, choice, config)
            _prepare_updates(trainer, choice, config)
            if "Rollouter" not in kind:  # which samples, in a process beside that of its trainer
                checks.report(choice, config)
        trainer.__dict__["config"] = config

    def __get__(self, trainer: Any, kind: type[Any] | None = None) -> Any:
        if trainer is None or "config" not in trainer.__dict__:
            raise AttributeError("config")
        return trainer.__dict__["config"]


def find_verls(kind: type[Any]) -> type[Any]:
    """The class of verl's that a trainer is, or that it extends."""
    return next((each for each in kind.__mro__ if each.__module__.startswith("verl.")), kind)


def find_mode(kind: str) -> sources.Mode:
    """The trainer whose class has that name."""
    scoring = "credit_sync" if kind in NAMES else "credit_separate_async"
    return sources.Mode(NAMES.get(kind, f"the {kind} of verl"), V1 + scoring)


def check_config(config: Any, mode: sources.Mode) -> settings.Choice:
    """As `checks.check_config`, which holds for V1, with what these trainers do not give."""
    choice = checks.check_config(config, mode)
    _refuse_what_only_v1_gives(choice, mode)
    rewards.refuse_rejection(choice.estimator, config.algorithm)
    return choice


def _refuse_what_only_v1_gives(choice: settings.Choice, mode: sources.Mode) -> None:
    """Refuses arrays that these trainers have and do not hand to an estimator."""
    given = (*passes.STATISTICS, "deviation", "token_rewards", "turns")
    missing = [name for name in choice.estimator.required_fields if name not in given]
    if choice.token_rewards != "token_level_rewards":
        missing.append(choice.token_rewards)
    if choice.reward_keys:
        missing.append("several rewards")
    if missing:
        name = hooks.FRAMEWORK.name_of(choice.estimator)
        raise ValueError(
            f"{name} needs {', '.join(missing)}, which {mode.name} does not hand to estimators; "
            f"set {mode.scoring}"
        )


def _keep_passes(trainer: Any, choice: settings.Choice, config: Any) -> None:
    """Gives the estimator what the passes before it compute; rows keep their order until it is called."""
    names = (*choice.handed, *(() if choice.record_steps is None else passes.SHOWN))
    if not names:
        return
    compute_old, compute_reference = trainer._compute_old_log_prob, trainer._compute_ref_log_prob
    arrays, bypasses = dict[str, Tensor](), passes.are_skipped(config)
    read_size = cache(partial(passes.read_vocabulary_size, config))

    def hand_over() -> None:
        size = read_size() if "entropy" in arrays else 0
        fields = passes.derive_statistics(arrays, names, size)
        padding = [False] * len(arrays["old_log_probs"])
        rollouts.set_step(rollouts.StepContext((), padding, fields, choice, once=True))

    @wraps(compute_old)
    def keep_old(batch: Any) -> Any:
        result = compute_old(batch)
        arrays.clear()
        arrays.update(old_log_probs=result[0].batch["old_log_probs"], entropy=result[0].batch["entropys"])
        hand_over()
        return result

    @wraps(compute_reference)
    def keep_reference(batch: Any) -> Any:
        result = compute_reference(batch)
        if bypasses:  # verl has taken the rollout's log-probs for the old ones
            arrays["old_log_probs"] = batch.batch["old_log_probs"]
        arrays["ref_log_prob"] = result.batch["ref_log_prob"]
        hand_over()
        return result

    trainer._compute_old_log_prob, trainer._compute_ref_log_prob = keep_old, keep_reference


def _prepare_updates(trainer: Any, choice: settings.Choice, config: Any) -> None:
    """Records completions, and takes those without a finite reward out of the loss, before each update."""
    aggregation = config.actor_rollout_ref.actor.loss_agg_mode

    def prepare(batch: Any) -> None:
        outcome = rollouts.take_outcome()  # the first of both models' updates gets it
        if outcome is not None and _is_recording(trainer, choice):
            records.write_records(trainer, choice, outcome, partial(records.select_ids, batch))
        invalid_rows.leave_batch(batch, aggregation)

    for name in UPDATES:
        update = getattr(trainer, name, None)  # a trainer that only samples has none
        if update is not None:
            setattr(trainer, name, _call_before(prepare, update))


def _is_recording(trainer: Any, choice: settings.Choice) -> bool:
    """Whether the batch is the first of its step, and the step's completions are recorded."""
    # fully_async_policy trains on several batches in a step, and counts them from 1.
    return (
        choice.is_recording_step(records.find_step(trainer))
        and getattr(trainer, "local_trigger_step", 1) == 1
    )


def _call_before(prepare: Callable[[Any], None], update: Any) -> Any:
    @wraps(update)
    def prepare_and_update(batch: Any) -> Any:
        prepare(batch)
        return update(batch)

    return prepare_and_update


def _forget_passes(trainer: Any) -> None:
    """Takes back what an earlier config has made of the trainer, and what a trainer before it left behind."""
    for name in (*PASSES, *UPDATES):
        if hasattr(vars(trainer).get(name), "__wrapped__"):
            del vars(trainer)[name]
    rollouts.set_step(None)


RayPPOTrainer.config = CheckedConfig()
