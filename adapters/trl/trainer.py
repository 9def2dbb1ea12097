"""The trainer: TRL's, with advantages [B, T] from an estimator."""

import warnings
from typing import Any

import torch
from trl import GRPOTrainer
from trl.models import prepare_deepspeed, prepare_fsdp
from trl.trainer.utils import add_fused_lm_head, disable_dropout_in_model

import credit
from credit.adapters.trl import (
    completions_table,
    options,
    records,
    resuming,
    rewards,
    reweighting,
    rollouts,
    sampling,
    statistics,
)
from credit.adapters.trl.prompt_stream import PromptStream
from credit.adapters.trl.settings import parse_estimator

Tensor = torch.Tensor
SAME = 1e-3  # a deviation above this at the first step is no rounding


class CreditMixin:
    """Puts an estimator's advantages into any GRPOTrainer; list it before the trainer class.

    `args.advantage_estimator` and `args.advantage_estimator_kwargs` choose the estimator; without
    them TRL's path is untouched. `ref_model` is the reference for estimators (and for TRL's KL term)
    in place of the one that TRL loads from the model's path. TRL's loss options stay the user's.
    """

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: Any = None,
        *positional: Any,
        ref_model: Any = None,
        **named: Any,
    ) -> None:
        self.credit_estimator = parse_estimator(args)
        self.credit_prompts: PromptStream | None = None  # for resampling
        self.credit_sampler: Any = None
        self._credit_step: int | None = None  # when the weights of the batch were computed
        self._reference_given = ref_model is not None
        if self.credit_estimator is not None:
            given = dict(zip(("train_dataset", "eval_dataset", "processing_class"), positional, strict=False))
            options.refuse(self.credit_estimator, args, **(given | named))
        if ref_model is not None and args is not None and args.sync_ref_model:
            raise ValueError("sync_ref_model cannot follow a given ref_model; leave one of them out")
        beta = None if args is None else args.beta
        # TRL makes, prepares and synchronises a reference where beta is not 0 while it is built, and
        # uses it in the loss where self.beta is not 0 later.
        if ref_model is not None and args is not None:
            args.beta = 0.0
        elif options.needs_reference(self.credit_estimator) and beta == 0.0:
            args.beta = 1.0
        try:
            super().__init__(model, reward_funcs, args, *positional, **named)
        finally:
            if args is not None:
                args.beta = beta
        self.beta = self.args.beta
        if ref_model is not None:
            self._attach_reference(ref_model)
        rewards.set_up_rewards(self)
        if options.needs_statistics(self.credit_estimator):
            statistics.refuse_fsdp1(self)
        if self.credit_estimator is not None:
            if self._is_vlm:
                options.refuse_images(self.credit_estimator, self.args)
            if sampling.sampling_mode(self.args, self.credit_estimator) == "resample":
                stream = (len(self.train_dataset), self.args.seed, self.shuffle_dataset)
                self.credit_prompts = PromptStream(*stream)
            if self.accelerator.is_main_process:
                options.report_differences(self.credit_estimator, self.args)

    def _attach_reference(self, model: Any) -> None:
        """Prepares a given reference as TRL prepares its own."""
        model.requires_grad_(False)
        if self.args.disable_dropout:
            disable_dropout_in_model(model)
        add_fused_lm_head(
            model, temperature=self.temperature, cast_lm_head_to_fp32=self.args.cast_lm_head_to_fp32
        )
        if self.is_deepspeed_enabled:
            self.ref_model = prepare_deepspeed(model, self.accelerator)
        elif self.is_fsdp_enabled:
            self.ref_model = prepare_fsdp(model, self.accelerator)
        else:
            self.ref_model = self.accelerator.prepare_model(model, evaluation_mode=True)
        self.ref_model.eval()

    def _calculate_rewards(self, *arguments: Any, **named: Any) -> Tensor:
        self.credit_rewards = rewards.mask_unscored_penalty(
            self, super()._calculate_rewards(*arguments, **named)
        )
        return self.credit_rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        generate = super()._generate_and_score_completions
        if self.credit_estimator is None:
            return generate(inputs)
        mode = "train" if self.model.training else "eval"
        if mode == "train" and self.credit_prompts is not None:
            output = sampling.resample(self, generate, inputs)
        else:
            output = generate(inputs)
        stays = sampling.mask_dropped_rows(self, output, mode)
        recorded = mode == "train" and records.is_recording_step(self)
        given = rollouts.make_rollouts(self, output, mode, stays, every=recorded)
        result = self.credit_estimator(given)
        result.metrics["invalid_rows"] = (
            ~rollouts.has_finite_rewards(given.rewards)
        ).sum()  # without those filtered
        rows, width = output["completion_ids"].shape
        scale = sampling.row_mean_correction(self.loss_type, stays)
        output["advantages"] = scale * sampling.own_rows(self, result.advantages, rows)[:, :width]
        of_rows = result.advantages.sum(dim=1) / given.mask.sum(dim=1).clamp(min=1)
        if mode == "train" and self.args.reweight_with_current_policy:
            output[reweighting.ROWS] = scale * sampling.own_rows(self, of_rows, rows)
            self._credit_step = self.state.global_step
        self._warn_of_another_reference(given, mode)
        self._log_credit(result, mode)
        completions_table.set_advantages(self._logs, of_rows.tolist())
        if recorded:
            records.write_records(self, output, given, result)
        return output

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if reweighting.ROWS in inputs and self.state.global_step != self._credit_step:
            inputs = inputs | {"advantages": reweighting.recompute_advantages(self, inputs)}
        return super()._compute_loss(model, inputs)

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        self.credit_sampler = super()._get_train_sampler(dataset)
        return self.credit_sampler

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self.credit_estimator is not None:
            resuming.save_state(self, output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.credit_estimator is not None and checkpoint is not None:
            resuming.load_state(self, checkpoint)

    def _warn_of_another_reference(self, given: credit.Rollouts, mode: str) -> None:
        at_start = mode == "train" and self.state.global_step == 0 and not self._reference_given
        if not at_start or given.deviation is None:
            return
        largest = given.deviation.max().item()
        if largest > SAME:
            path = self.model.config._name_or_path
            warnings.warn(
                f"before the first step the policy deviates from its reference by up to {largest:.3g} "
                f"(squared Hellinger distance; 0 expected). TRL loads it from {path!r}: if the policy is "
                "not what lies there, give the trainer ref_model=",
                stacklevel=2,
            )

    def _log_credit(self, result: credit.Credit, mode: str) -> None:
        """The estimator's metrics as credit/..."""
        values = torch.stack([value.float() for value in result.metrics.values()]).tolist()
        for name, value in zip(result.metrics, values, strict=True):
            self._metrics[mode][f"credit/{name}"].append(value)


class CreditGRPOTrainer(CreditMixin, GRPOTrainer):
    """GRPOTrainer with the estimators of credit; see `CreditMixin` and `CreditGRPOConfig`."""

    _tag_names = [*GRPOTrainer._tag_names, "credit"]
