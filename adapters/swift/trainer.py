"""The trainer: ms-swift's, with advantages from an estimator."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from swift.rlhf_trainers.grpo_trainer import GRPOTrainer
from swift.rlhf_trainers.utils import get_even_process_data
from swift.trainers import disable_gradient_checkpointing

import credit
from credit.adapters import metrics, rewards
from credit.adapters.estimator_report import report_estimator
from credit.adapters.fields import LOGGED, add_logged, list_shown, measure_logged, needed_statistics
from credit.adapters.records import serves_step
from credit.adapters.sessions import assign_credit
from credit.adapters.swift import (
    layout,
    options,
    reference,
    rollouts,
    sampling,
    statistics,
)
from credit.adapters.swift.choice import Choice, find_choice
from credit.adapters.swift.hooks import FRAMEWORK
from credit.adapters.swift.records import write_records
from credit.adapters.traits import find_filters, weighs_rewards
from credit.several_rewards import find_scored_rows

Tensor = torch.Tensor


@dataclass
class CreditState:
    """The attribute `credit` of the trainer.

    Attributes:
        choice: what `train_with` was called with.
        estimator: its estimator, with the weights of the rewards.
        scoring: the statistics of the batch whose log-probs are being computed; None: they are not wanted.
    """

    choice: Choice
    estimator: credit.Estimator
    scoring: statistics.Scoring | None = None


class CreditGRPOTrainer(GRPOTrainer):
    """ms-swift's GRPOTrainer with the estimator that `train_with` named; the loss and options are its own."""

    reward_weights: Tensor  # [K], ms-swift's attribute, which an estimator may set

    def __init__(self, model: Any = None, ref_model: Any = None, *positional: Any, **named: Any) -> None:
        choice = find_choice()
        if choice is None:
            raise RuntimeError(
                "no estimator is named; call credit.adapters.swift.train_with before the trainer is made"
            )
        self.credit = CreditState(choice, choice.estimator)
        options.refuse_columns(choice.estimator, named.get("train_dataset"), named.get("eval_dataset"))
        super().__init__(model, ref_model, *positional, **named)
        # Every teacher is refused, and ms-swift 4.6 takes a run without one for one that distils from itself:
        # it would refuse losses that do not go with a teacher.
        self._has_teacher = self._is_dynamic_self_distillation = False
        layout.refuse_rings(self)
        self._set_up_credit(choice.estimator)

    def _set_up_credit(self, estimator: credit.Estimator) -> None:
        """Settles what depends on the trainer that ms-swift has built."""
        rewards.refuse_missing_columns(find_filters(estimator), self.reward_func_names)
        if weighs_rewards(estimator):
            estimator, weights = rewards.settle_weights(estimator, self.reward_weights)
            self.credit.estimator, self.reward_weights = estimator, weights.to(self.reward_weights)
        if needed_statistics(estimator):
            statistics.refuse_models(self, estimator)
        if self.accelerator.is_main_process:
            report_estimator(FRAMEWORK, estimator, source="from the models' hidden states")
            options.report_differences(estimator, self.args)

    def compute_std(self, samples: Sequence[Any], rewards_per_func: Tensor) -> Tensor:
        """[N]: 1 for rows of groups that may train and 0 for others, which dynamic sampling replaces."""
        groups = rollouts.find_groups(self, samples, len(rewards_per_func), rewards_per_func.device)
        live = sampling.find_live_rows(
            self.credit.estimator, rewards_per_func, groups.ids, self.reward_weights, vary=True
        )
        return live.float()

    def _prepare_batch_inputs(self, samples: Sequence[Any]) -> list[dict[str, Any]]:
        needed = needed_statistics(self.credit.estimator)
        if not needed:
            return super()._prepare_batch_inputs(samples)
        names = add_logged(needed)
        if self._is_recording():
            names = tuple(dict.fromkeys((*names, *list_shown(self.credit.estimator))))
        self.credit.scoring = statistics.start_scoring(names, self.credit.choice.statistics_memory_mb)
        return super()._prepare_batch_inputs(samples)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        model_inputs: Any,
        grpo_batch: Any,
        compute_entropy: bool = False,
        origin_data: Any = None,
    ) -> Any:
        def run() -> Any:
            compute = super(CreditGRPOTrainer, self)._get_per_token_logps_and_entropies
            return compute(model, model_inputs, grpo_batch, compute_entropy, origin_data)

        scoring = self.credit.scoring
        if scoring is None:
            return run()
        found = statistics.score(self, scoring, model, grpo_batch.completion_mask, run)
        if scoring.policy is not None and self.beta == 0.0:  # otherwise ms-swift runs the reference next
            with scoring.timed():
                self._run_reference(model_inputs, grpo_batch, origin_data)
        return found

    def _run_reference(self, model_inputs: Any, grpo_batch: Any, origin_data: Any) -> None:
        """The forward that ms-swift makes only where its loss has a KL term."""
        if self.ref_model is None:
            with self.null_ref_context():
                self._get_per_token_logps_and_entropies(
                    self.model, model_inputs, grpo_batch, origin_data=origin_data
                )
            return
        with disable_gradient_checkpointing(self.ref_model, self.args.gradient_checkpointing_kwargs):
            self._get_per_token_logps_and_entropies(
                self.ref_model, model_inputs, grpo_batch, origin_data=origin_data
            )

    def _get_per_token_logps_and_entropies_single(
        self, model: Any, model_inputs: Any, grpo_batch: Any, compute_entropy: bool = False
    ) -> Any:
        compute = super()._get_per_token_logps_and_entropies_single
        with statistics.capture(self, model, model_inputs, grpo_batch, self.credit.scoring):
            return compute(model, model_inputs, grpo_batch, compute_entropy)

    def _get_logps_via_sp(
        self,
        model: Any,
        model_inputs: Any,
        grpo_batch: Any,
        logits_to_keep: int,
        input_ids: Tensor,
        compute_entropy: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """ms-swift's own, but for rows whose length the ranks do not divide.

        It pads them at their end and then counts from there, so that its log-probs are those of other tokens.
        """
        padding = layout.count_padding(self, input_ids)
        compute = super()._get_logps_via_sp
        found, entropies = compute(
            model, model_inputs, grpo_batch, logits_to_keep + padding, input_ids, compute_entropy
        )
        width = found.shape[1] - padding
        return found[:, :width], None if entropies is None else entropies[:, :width]

    @contextmanager
    def null_ref_context(self) -> Iterator[None]:
        """Within it the policy acts as the reference."""
        with super().null_ref_context(), statistics.by_reference(self.credit.scoring):
            yield

    def _postprocess_batch(self, samples: Sequence[Any], batch_encoded_inputs: list[dict[str, Any]]) -> None:
        scoring, self.credit.scoring = self.credit.scoring, None
        super()._postprocess_batch(samples, batch_encoded_inputs)
        options.refuse_teacher(self.credit.estimator.name, samples)
        found = [] if scoring is None else scoring.found
        batch, given = rollouts.Batch(self, samples, batch_encoded_inputs), self._rewards_per_func
        groups = rollouts.find_groups(self, samples, len(given), given.device)
        stays = sampling.choose_rows(self, given, groups)
        whole = rollouts.make_rollouts(self, batch, groups, given, stays, found, every=self._is_recording())
        result = assign_credit(self.credit.estimator, whole, groups.last)
        # Rows that were filtered are not counted here, although they are not valid.
        result.metrics["invalid_rows"] = (~find_scored_rows(whole.rewards)).sum()
        self._log_credit(result, batch, found)
        if scoring is not None:
            self._metrics[self._mode()]["credit/statistics_seconds"].append(scoring.seconds)
        reference.warn_of_another_reference(self, whole)
        own = get_even_process_data(self, list(range(len(given))))
        sampling.mask_dropped_rows(self, batch, stays, stays[own])
        for each, placed in zip(batch.batches, batch.place(result.advantages[own]), strict=True):
            each.advantages = placed.to(each.advantages.dtype)
        self._log_row_means(result.advantages, whole.mask)
        if self._is_recording():
            write_records(self, batch, whole, result)

    def compute_loss(self, model: Any, inputs: Any, *positional: Any, **named: Any) -> Tensor:
        loss: Tensor = super().compute_loss(model, inputs, *positional, **named)
        (given,) = inputs if isinstance(inputs, list) else [inputs]
        return loss * sampling.row_mean_correction(given["grpo_batch"])

    def _log_credit(self, result: credit.Credit, batch: rollouts.Batch, found: Sequence[Any]) -> None:
        """Logs the estimator's metrics, and means of what was computed anyway, as credit/<name>."""
        values = metrics.read_metrics(self.credit.estimator.name, result)
        names = [name for name in LOGGED if found and name in found[0]]
        logged = {name: batch.gather([each[name] for each in found]) for name in names}
        values |= {name: float(value) for name, value in measure_logged(logged, batch.whole_mask).items()}
        for name, value in values.items():
            self._metrics[self._mode()][f"credit/{name}"].append(value)

    def _log_row_means(self, advantages: Tensor, mask: Tensor) -> None:
        """Puts the mean advantage of each completion into ms-swift's table, in place of its own."""
        means = (advantages * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        table = self._logs["advantages"]
        for _ in range(min(len(means), len(table))):
            table.pop()
        table.extend(means.tolist())

    def _is_recording(self) -> bool:
        steps = self.credit.choice.record_steps
        return bool(self.model.training and steps and serves_step(self, steps))

    def _mode(self) -> str:
        return "train" if self.model.training else "eval"

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        metrics.combine_extremes(self._metrics[self._mode()])
        super().log(logs, start_time)
