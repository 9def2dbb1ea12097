"""The reference of a policy worker: a frozen model of its own, or the policy without its LoRA adapter."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from skyrl.backends.skyrl_train.distributed.fsdp_utils import should_use_meta_init
from skyrl.backends.skyrl_train.workers.model_wrapper import HFModelWrapper
from torch.distributed.fsdp import FSDPModule
from transformers import AutoConfig

from credit.adapters.heads import refuse_trained_base


class AdapterOff:
    """The policy without its adapter, which takes no memory."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker
        refuse_trained_base(worker.model.model, "trainer.policy.model.lora.target_modules")

    @contextmanager
    def ready(self) -> Iterator[Any]:
        """Within it the model that it yields acts as the reference."""
        model = self.worker.model.model
        with model.disable_adapter():
            yield model

    def rest(self) -> None:
        """The policy's weights go where SkyRL puts them."""


class Frozen:
    """A model that never trains, sharded as the policy is.

    It goes to the CPU where SkyRL puts the policy there, and comes back for the next batch.
    """

    def __init__(self, worker: Any, path: str) -> None:
        self.strategy = worker.strategy
        self.wrapper = self.strategy.prepare(load(worker, path))
        self.wrapper.eval().requires_grad_(False)
        self.resting = False

    @contextmanager
    def ready(self) -> Iterator[Any]:
        """Within it the model that it yields acts as the reference."""
        if self.resting:
            self.strategy.backload_to_gpu(self.wrapper, None)
            self.resting = False
        try:
            yield self.wrapper.model
        finally:
            self._shard()

    def _shard(self) -> None:
        """Frees the whole weights, which FSDP may keep for a backward that never comes."""
        for module in self.wrapper.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def rest(self) -> None:
        """Leaves the GPU."""
        if not self.resting:
            self.strategy.offload_to_cpu(self.wrapper, None)
            self.resting = True


def make_reference(worker: Any, path: str) -> AdapterOff | Frozen:
    """The reference with the weights of that path, as SkyRL's own reference worker has them.

    Where the policy starts from the same path with LoRA, it is the policy without its adapter.
    """
    cfg = worker.cfg
    if cfg.policy.model.lora.rank > 0 and path == cfg.policy.model.path:
        return AdapterOff(worker)
    return Frozen(worker, path)


def choose_model_config(cfg: Any, path: str) -> Any:
    """The changes to the model's config: the reference's own, or else those of a policy of the same path."""
    same = path == cfg.policy.model.path and not cfg.ref.model_config_kwargs
    return cfg.policy.model_config_kwargs if same else cfg.ref.model_config_kwargs


def load(worker: Any, path: str) -> HFModelWrapper:
    """The model as SkyRL loads its own reference, but in the precision of the policy.

    In 16-bit precision its weights are rounded as FSDP rounds those of the policy for a forward, so that
    equal models deviate by exactly 0.
    """
    cfg = worker.cfg
    precision = cfg.policy.fsdp_config.mixed_precision
    halved = precision is None or precision.param_dtype in ("bf16", "bfloat16")
    model_config = AutoConfig.from_pretrained(path, trust_remote_code=True)
    return HFModelWrapper(
        path,
        use_flash_attention_2=cfg.flash_attn,
        bf16=cfg.bf16 and halved,
        sequence_parallel_size=1,
        remove_microbatch_padding=cfg.remove_microbatch_padding,
        model_config_kwargs=choose_model_config(cfg, path),
        meta_init=should_use_meta_init(
            use_meta_tensor=not model_config.tie_word_embeddings, mesh=worker.strategy.device_mesh
        ),
        language_model_only=cfg.policy.language_model_only,
        logprobs_chunk_size=cfg.logprobs_chunk_size,
    )


def autocast() -> torch.autocast:
    """The context in which SkyRL runs its models."""
    return torch.autocast(dtype=torch.bfloat16, device_type="cuda")
