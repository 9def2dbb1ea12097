"""The trainer: TRL's, with advantages [B, T] from an estimator."""

import time
import warnings
from typing import Any

import torch
from trl import GRPOTrainer
from trl.models import prepare_deepspeed, prepare_fsdp
from trl.trainer.utils import add_fused_lm_head, disable_dropout_in_model

import credit
from credit.adapters.trl import options, scoring
from credit.adapters.trl.config import estimator_of

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
        self.credit_estimator = estimator_of(args)
        self._reference_given = ref_model is not None
        if self.credit_estimator is not None:
            processing_class = named.get("processing_class", positional[2] if len(positional) > 2 else None)
            options.refuse(self.credit_estimator, args, processing_class)
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
        if options.needs_statistics(self.credit_estimator):
            scoring.refuse_layout(self)
        if self.credit_estimator is not None:
            if self._is_vlm and options.needs_statistics(self.credit_estimator):
                options.refuse_images(self.credit_estimator)
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
        self._rewards_per_func = super()._calculate_rewards(*arguments, **named)
        return self._rewards_per_func

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        training = self.model.training
        output = super()._generate_and_score_completions(inputs)
        if self.credit_estimator is None:
            return output
        rollouts = self._rollouts(output, training)
        result = self.credit_estimator(rollouts)
        rows, width = output["completion_ids"].shape
        first = self.accelerator.process_index * rows
        output["advantages"] = result.advantages[first : first + rows, :width]
        self._leave_out_invalid(output, torch.isfinite(rollouts.rewards), first)
        self._warn_of_another_reference(rollouts, training)
        self._log_credit(result, rollouts, "train" if training else "eval")
        return output

    def _rollouts(self, output: dict[str, Tensor], training: bool) -> credit.Rollouts:
        """The rollouts of all processes, in TRL's order: groups are contiguous."""
        mask = output["completion_mask"] * output.get("tool_mask", 1)
        fields = {"mask": mask}
        needs = self.credit_estimator.needs
        if options.needs_statistics(self.credit_estimator):
            started = time.perf_counter()
            scores = scoring.statistics(self, output, mask)
            fields |= {name: field for name, field in scores.items() if name in needs}
            mode = "train" if training else "eval"
            self._metrics[mode]["credit/statistics_seconds"].append(time.perf_counter() - started)
        if "rollout_log_probs" in needs:
            fields["rollout_log_probs"] = output["sampling_per_token_logps"]
        fields = {name: self._gathered(field) for name, field in fields.items()}
        rewards = self._rewards()
        size = self.num_generations if training else self.num_generations_eval
        return credit.Rollouts(
            rewards=rewards,
            groups=torch.arange(len(rewards), device=rewards.device) // size,
            progress=torch.tensor(
                self.state.global_step / max(self.state.max_steps, 1), device=rewards.device
            ),
            **fields,
        )

    def _rewards(self) -> Tensor:
        """The weighted sum of the reward functions [N]; NaN where none of them scored the row."""
        each = self._rewards_per_func
        rewards = (each * self.reward_weights.to(each.device)).nansum(dim=1)
        return rewards.masked_fill(each.isnan().all(dim=1), float("nan"))

    def _gathered(self, field: Tensor) -> Tensor:
        return self.accelerator.gather(self.accelerator.pad_across_processes(field.contiguous(), dim=1))

    def _leave_out_invalid(self, output: dict[str, Tensor], valid: Tensor, first: int) -> None:
        """Takes rows without a finite reward out of the loss and of its normaliser."""
        if valid.all():
            return
        rows = valid[first : first + len(output["completion_mask"]), None]
        for name in ("completion_mask", "tool_mask"):
            if name in output:
                output[name] = output[name] * rows
        mask = output["completion_mask"] * output.get("tool_mask", 1)
        output["num_items_in_batch"] = self.accelerator.gather(mask.sum()).sum()

    def _warn_of_another_reference(self, rollouts: credit.Rollouts, training: bool) -> None:
        at_start = training and self.state.global_step == 0 and not self._reference_given
        if not at_start or rollouts.deviation is None:
            return
        largest = rollouts.deviation.max().item()
        if largest > SAME:
            path = self.model.config._name_or_path
            warnings.warn(
                f"before the first step the policy deviates from its reference by up to {largest:.3g} "
                f"(squared Hellinger distance; 0 expected). TRL loads it from {path!r}: if the policy is "
                "not what lies there, give the trainer ref_model=",
                stacklevel=2,
            )

    def _log_credit(self, result: credit.Credit, rollouts: credit.Rollouts, mode: str) -> None:
        """The estimator's metrics as credit/..., and its A_i in TRL's table of completions."""
        values = torch.stack([value.float() for value in result.metrics.values()]).tolist()
        for name, value in zip(result.metrics, values, strict=True):
            self._metrics[mode][f"credit/{name}"].append(value)
        lengths = rollouts.mask.sum(dim=1).clamp(min=1)
        advantages = (result.advantages.sum(dim=1) / lengths).tolist()
        logged = self._logs["advantages"]
        for _ in range(min(len(advantages), len(logged))):
            logged.pop()
        logged.extend(advantages)


class CreditGRPOTrainer(CreditMixin, GRPOTrainer):
    """GRPOTrainer with the estimators of credit; see `CreditMixin` and `CreditGRPOConfig`."""

    _tag_names = [*GRPOTrainer._tag_names, "credit"]
