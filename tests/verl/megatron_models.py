"""What verl's engine calls of Megatron-Bridge, which needs Transformer Engine, for the model of tiny_megatron."""

import types
from contextlib import contextmanager

import torch
from tiny_megatron import load_weights, make_model
from transformers import AutoConfig, AutoModelForCausalLM

GIVEN = (
    *("tensor_model_parallel_size", "context_parallel_size", "pipeline_model_parallel_size"),
    *("sequence_parallel", "variable_seq_lengths", "batch_p2p_comm", "moe_token_dispatcher_type"),
)


class Provider(types.SimpleNamespace):
    """Megatron-Bridge's, as far as verl's engine uses it: its attributes are settings of the model."""

    def register_pre_wrap_hook(self, _):
        """Takes what would add an adapter to the model."""

    def provide_distributed_model(self, **_):
        return [make_model(AutoConfig.from_pretrained(self.path), bf16=self.bf16, **self.settings())]

    def settings(self):
        """What verl's engine has set, and what Megatron-Bridge sets with context parallelism."""
        given = {name: getattr(self, name) for name in GIVEN}
        return given | {"calculate_per_token_loss": self.context_parallel_size > 1}


class AutoBridge:
    """Megatron-Bridge's, as far as verl's engine uses it."""

    @classmethod
    def from_hf_pretrained(cls, path, **_):
        bridge = cls()
        bridge.path = path
        return bridge

    def to_megatron_provider(self, load_weights):
        return Provider(path=self.path)

    def load_hf_weights(self, modules, path, **_):
        load_weights(modules[0], AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32))


class Adapter:
    """Megatron-Bridge's PEFT, as far as verl's engine uses it: without the adapter a module has its base's weights.

    `base` and `tuned` are Hugging Face models.
    """

    @contextmanager
    def disable_adapter(self, modules):
        load_weights(modules[0], self.base)
        yield
        load_weights(modules[0], self.tuned)


def create_peft(*_, **__):
    return Adapter()


def unused(*_, **__):
    """What verl imports of Megatron-Bridge besides."""


make_value_model = freeze_moe_router = create_peft_hook = load_peft_adapter_checkpoint = unused
