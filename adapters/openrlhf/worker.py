"""OpenRLHF's policy worker, which also scores tokens against a reference of its own."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from openrlhf.models import Actor
from openrlhf.trainer.ray import ppo_actor
from openrlhf.utils.vlm_utils import merge_mm_train_inputs

from credit.adapters.hooks import check_functions
from credit.adapters.openrlhf import hooks, lora, statistics
from credit.adapters.openrlhf.settings import Choice

check_functions(hooks.FRAMEWORK, hooks.WORKER | hooks.POLICY_TRAINER | hooks.SCORING)

Tensor = torch.Tensor
Base: Any = ppo_actor.PolicyModelActor.__ray_actor_class__  # Ray's decorated class cannot be subclassed


class CreditPolicyModelActor(Base):
    """PolicyModelActor whose log-prob pass can keep token statistics for `take_credit`.

    The frozen reference lies in this process, sharded as the policy is, and sees each micro-batch right
    after the policy in the same layout, so that equal models deviate by exactly 0. With LoRA it is the
    policy without its adapter, and what vLLM gets is the policy with it. Estimators that read rewards alone
    leave OpenRLHF's pass as it is.
    """

    def init_model_from_pretrained(
        self, strategy: Any, pretrain: str, max_steps: int | None = None, vllm_engines: Any = None
    ) -> None:
        super().init_model_from_pretrained(strategy, pretrain, max_steps, vllm_engines)
        choice = strategy.args.credit
        self._credit_fields = choice.scored if choice else ()
        self._credit_statistics: list[dict[str, Tensor]] = []
        if self._credit_fields:
            self._credit_reference = self._make_reference(choice, pretrain)
        self._credit_merges = choice is not None and strategy.args.ds.lora.rank > 0
        if self._credit_merges:
            lora.refuse_unmergeable(self.actor.model.module)

    def _make_reference(self, choice: Choice, pretrain: str) -> Callable[[], AbstractContextManager[Any]]:
        """A context that yields the reference model, or None if the estimator needs no reference."""
        if not choice.compares:
            return nullcontext
        if choice.reference is None and self.strategy.args.ds.lora.rank > 0:
            return lambda: statistics.adapter_disabled(self.actor)
        model = load_reference(self.strategy, choice.reference or pretrain)
        return lambda: nullcontext(model)

    def forward(
        self,
        sequences: Tensor,
        action_mask: Any = None,
        attention_mask: Any = None,
        packed_seq_lens: Any = None,
        mm_train_inputs_list: Any = None,
    ) -> Tensor:
        if not self._credit_fields:
            return super().forward(
                sequences, action_mask, attention_mask, packed_seq_lens, mm_train_inputs_list
            )
        device = torch.cuda.current_device()
        batch = [each.to(device) for each in (sequences, action_mask, attention_mask)]
        self.actor.eval()
        with torch.no_grad():
            log_probs, found = statistics.score_tokens(
                self.actor,
                self._credit_reference,
                *batch,
                names=self._credit_fields,
                ring_attn_group=self.strategy.ring_attn_group,
                **self._merge_images(mm_train_inputs_list, device),
            )
        self.actor.train()
        self._credit_statistics.append({name: field.to("cpu") for name, field in found.items()})
        return log_probs.to("cpu")

    def _merge_images(self, mm_train_inputs_list: Any, device: Any) -> dict[str, Tensor]:
        """The images of all rows in their order, as OpenRLHF's own pass takes them."""
        if mm_train_inputs_list and getattr(self.actor, "is_vlm", False):
            return merge_mm_train_inputs(mm_train_inputs_list, device)
        return {}

    def broadcast_to_vllm(self) -> None:
        """Sends the weights to vLLM, with LoRA merged."""
        if self._credit_merges:
            lora.broadcast_merged(self.trainer)
        else:
            super().broadcast_to_vllm()

    def take_credit(self) -> tuple[list[dict[str, Tensor]], float]:
        """The statistics of the micro-batches since the last call, and training progress in [0, 1]."""
        taken, self._credit_statistics = self._credit_statistics, []
        return taken, min(self.actor.model.global_steps / max(self.max_steps, 1), 1.0)


def load_reference(strategy: Any, path: str) -> Actor:
    """The frozen model of that checkpoint, as OpenRLHF's ReferenceModelActor makes it."""
    ds = strategy.args.ds
    model = Actor(
        path,
        attn_implementation=ds.attn_implementation,
        experts_implementation=ds.experts_implementation,
        param_dtype=ds.param_dtype,
        load_in_4bit=ds.load_in_4bit,
        ds_config=strategy.get_ds_eval_config(offload=strategy.args.ref.offload),
        packing_samples=ds.packing_samples,
        temperature=strategy.args.rollout.temperature,
        use_liger_kernel=ds.use_liger_kernel,
    )
    if strategy.args.ref.offload:
        model._offload = True
    model = strategy.prepare(model)
    model.eval()
    return model
