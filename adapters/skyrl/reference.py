"""The reference of a policy worker: a frozen model of its own, or the policy without its LoRA adapter."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from skyrl.backends.skyrl_train.distributed.fsdp_utils import should_use_meta_init
from skyrl.backends.skyrl_train.workers.model_wrapper import HFModelWrapper
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
        yield self.wrapper.model
        self.wrapper.model.reshard()  # FSDP keeps the head whole after a forward, for a backward

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
        model_config_kwargs=cfg.ref.model_config_kwargs,
        meta_init=should_use_meta_init(
            use_meta_tensor=not model_config.tie_word_embeddings, mesh=worker.strategy.device_mesh
        ),
        language_model_only=cfg.policy.language_model_only,
        logprobs_chunk_size=cfg.logprobs_chunk_size,
    )


def autocast() -> torch.autocast:
    """The context in which SkyRL runs its models."""
    return torch.autocast(dtype=torch.bfloat16, device_type="cuda")
