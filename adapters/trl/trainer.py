"""The trainer: TRL's, with advantages from an estimator."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from trl import GRPOTrainer

import credit
from credit.adapters import metrics, rewards
from credit.adapters.estimator_report import report_estimator
from credit.adapters.fields import needed_statistics
from credit.adapters.traits import find_filters, weighs_rewards
from credit.adapters.trl import (
    completions_table,
    extra,
    gspo_token,
    kept_forwards,
    losses,
    model_card,
    options,
    overlong,
    recorded_columns,
    records,
    reference,
    resuming,
    reward_lists,
    reweighting,
    rollouts,
    sampling,
    statistics,
    token_rewards,
    unsloth,
    unsloth_loss,
)
from credit.adapters.trl.hooks import FRAMEWORK, INIT
from credit.adapters.trl.processes import own_rows
from credit.adapters.trl.prompt_stream import PromptStream
from credit.adapters.trl.settings import parse_estimator
from credit.adapters.trl.state import CreditState
from credit.several_rewards import find_scored_rows

# To a type checker the mixin has the attributes of the trainer that it is listed before.
Trainer: Any = GRPOTrainer if TYPE_CHECKING else object

Tensor = torch.Tensor


class CreditMixin(Trainer):
    """Puts an estimator's advantages into any GRPOTrainer; list it before the trainer class.

    `args.advantage_estimator` and `args.advantage_estimator_kwargs` choose the estimator; without
    them TRL's path is untouched. `ref_model` is the reference for estimators (and for TRL's KL term)
    in place of the one that TRL loads from the model's path. TRL's loss options stay the user's.

    A trainer with a loss of its own gets advantages [B] of estimators that give one per response, as from
    TRL, and no others unless its class says `takes_token_advantages = True`: that its loss takes [B, T].
    """

    takes_token_advantages: bool
    reward_weights: Tensor  # TRL's attribute, which an estimator may set

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: Any = None,
        *positional: Any,
        ref_model: Any = None,
        **named: Any,
    ) -> None:
        if ref_model is not None and ref_model is model:
            raise ValueError("ref_model is the model that trains, and would be frozen; give a copy of it")
        unsloth.refuse_late_import(type(self))
        self.credit = CreditState(parse_estimator(args), reference_given=ref_model is not None)
        estimator = self.credit.estimator
        if estimator is not None:
            given = dict(zip(INIT.split()[4:], positional, strict=False)) | named
            options.refuse(estimator, args, **given)
            unsloth.refuse(args, type(self), **given)
            if ref_model is None:
                reference.refuse_lost_reference(estimator, model, given.get("peft_config"))
            self.credit.per_response = losses.takes_per_response(estimator, args, type(self))
        with reference.load_reference(args, estimator, ref_model):
            super().__init__(model, reward_funcs, args, *positional, **named)
        self.beta = self.args.beta
        if ref_model is not None:
            reference.attach_reference(self, ref_model)
        if overlong.has_penalty(self.args):
            overlong.add_penalty(self)
        if estimator is not None:
            self._set_up_credit(estimator)

    @property
    def credit_estimator(self) -> credit.Estimator | None:
        """The estimator of the advantages, with all its settings; None: TRL's own advantages."""
        return self.credit.estimator if hasattr(self, "credit") else None  # without __init__ there is none

    def _set_up_credit(self, estimator: credit.Estimator) -> None:
        """Settles what depends on the trainer that TRL has built."""
        functions = self.reward_func_names[: -1 if overlong.has_penalty(self.args) else None]
        self.credit.filter_column = sampling.find_column(self.args.dynamic_sampling_reward, functions)
        rewards.refuse_missing_columns(
            find_filters(estimator), functions, ", or dynamic_sampling_reward with a name"
        )
        if weighs_rewards(estimator):
            penalty = overlong.has_penalty(self.args)
            estimator, self.reward_weights = rewards.settle_weights(estimator, self.reward_weights, penalty)
            self.credit.estimator = estimator
        if needed_statistics(estimator):
            statistics.refuse_fsdp1(self)
            statistics.refuse_other_heads(self)
        if sampling.sampling_mode(self.args, estimator) == "resample":
            size, seed = len(self.train_dataset), self.args.seed
            self.credit.prompts = PromptStream(size, seed, self.shuffle_dataset)
        if self.accelerator.is_main_process:
            report_estimator(FRAMEWORK, estimator, source="from the models' hidden states")
            options.report_differences(estimator, self.args)

    def _calculate_rewards(self, *arguments: Any, **named: Any) -> Tensor:
        with reward_lists.sum_lists(self):
            given = super()._calculate_rewards(*arguments, **named)
        token_rewards.report_sums(self)
        if overlong.has_penalty(self.args):
            given = overlong.mask_unscored_penalty(given)
        self.credit.rewards = given
        return given

    def _generate(self, prompts: Any) -> Any:
        found = super()._generate(prompts)
        if self.credit_estimator is not None:
            self.credit.generated = extra.read_generated(found[1], found[2], found[5])
        return found

    def _log_completion_extra(self, column: str, values: Any) -> None:
        super()._log_completion_extra(column, values)
        if self.credit.generated is not None:
            self.credit.generated.logged.setdefault(column, []).extend(values)

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        score, estimator = super()._generate_and_score_completions, self.credit.estimator
        if estimator is None:
            return score(inputs)

        def generate(inputs: Any) -> dict[str, Any]:
            columns = extra.read_columns(inputs)
            output = score(inputs)
            unsloth_loss.refuse_images(self, output)
            extra.add_arrays(self, columns, output)
            if recorded:
                recorded_columns.add_rows(output, columns, generated)
            return output

        mode = "train" if self.model.training else "eval"
        resamples = mode == "train" and self.credit.prompts is not None
        recorded, generated = mode == "train" and records.is_recording_step(self), list[dict[str, Any]]()
        with kept_forwards.keep_forwards(self, resamples):
            output = sampling.resample(self, generate, inputs) if resamples else generate(inputs)
            unsloth_loss.add_log_probs(self, output)
            stays = sampling.mask_dropped_rows(self, output, mode)
            given = rollouts.make_rollouts(self, output, mode, stays, every=recorded)
        result = estimator(given)
        # Rows that were filtered are not counted here, although they are not valid.
        result.metrics["invalid_rows"] = (~find_scored_rows(given.rewards)).sum()
        of_rows = result.advantages.sum(dim=1) / given.mask.sum(dim=1).clamp(min=1)
        self._set_advantages(output, result.advantages, given, stays, mode)
        reference.warn_of_another_reference(self, given)
        self._log_credit(estimator.name, result, mode)
        completions_table.set_advantages(self._logs, of_rows.tolist())
        if recorded:
            records.write_records(self, output, given, result, generated)
        return output

    def _set_advantages(
        self, output: dict[str, Any], advantages: Tensor, given: credit.Rollouts, stays: Tensor, mode: str
    ) -> None:
        """Puts this process' rows of the advantages, as its loss takes them, and of A_i into TRL's batch."""
        rows, width = output["completion_ids"].shape
        scale = sampling.row_mean_correction(self.loss_type, stays)
        shaped = losses.shape_advantages(self, advantages, given.mask)
        own = own_rows(self.accelerator, shaped, rows)
        output["advantages"] = scale * (own[:, :width] if own.ndim == 2 else own)
        if mode == "train" and self.args.reweight_with_current_policy:
            parts = reweighting.row_advantages(self, given)
            output[reweighting.ROWS] = scale * own_rows(self.accelerator, parts, rows)
            self.credit.weights_step = self.state.global_step

    def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        if unsloth.find_trainer(type(self)) is None:
            return super().compute_loss(model, inputs, *arguments, **named)
        with unsloth_loss.use_layout(self, reweighting.follow_policy(self, inputs)) as given:
            return super().compute_loss(model, given, *arguments, **named)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        inputs = reweighting.follow_policy(self, inputs)
        if not gspo_token.is_used(self, inputs):
            return super()._compute_loss(model, inputs)
        with gspo_token.use_ratio_of_completions(self, inputs) as given:
            return super()._compute_loss(model, given)

    def _get_per_token_logps_and_entropies(self, model: Any, *arguments: Any, **named: Any) -> Any:
        tokens = named["logits_to_keep"] if "logits_to_keep" in named else arguments[2]
        with kept_forwards.keep_hidden(self, model, tokens):
            found = super()._get_per_token_logps_and_entropies(model, *arguments, **named)
        gspo_token.replace_old_log_probs(self, found[0])
        return found

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        self.credit.sampler = super()._get_train_sampler(dataset)
        return self.credit.sampler

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self.credit.estimator is not None:
            resuming.save_state(self, output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.credit.estimator is not None and checkpoint is not None:
            resuming.load_state(self, checkpoint)

    def _log_credit(self, estimator: str, result: credit.Credit, mode: str) -> None:
        """Logs the estimator's metrics as credit/<name>."""
        for name, value in metrics.read_metrics(estimator, result).items():
            self._metrics[mode][f"credit/{name}"].append(value)

    def create_model_card(self, *arguments: Any, **named: Any) -> None:
        super().create_model_card(*arguments, **named)
        if self.credit.estimator is not None and self.is_world_process_zero():
            model_card.add_section(Path(self.args.output_dir) / "README.md", self.credit.estimator)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        metrics.combine_extremes(self._metrics["train" if self.model.training else "eval"])
        super().log(logs, start_time)


class CreditGRPOTrainer(CreditMixin, GRPOTrainer):
    """GRPOTrainer with the estimators of credit; see `CreditMixin` and `CreditGRPOConfig`."""

    _tag_names = [*GRPOTrainer._tag_names, "credit"]
