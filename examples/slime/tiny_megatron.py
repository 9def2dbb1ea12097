"""megatron-core's GPTModel on a CPU, with the weights of a Hugging Face Qwen2.

Importing it makes megatron-core ask the CPU for what it would ask CUDA for. Layers are megatron-core's own,
without Transformer Engine; norms and the attention over packed and distributed sequences stand in for
Transformer Engine's.
"""

from contextlib import nullcontext

import torch
from megatron.core import parallel_state, tensor_parallel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.tensor_parallel.random import CudaRNGStatesTracker
from megatron.core.transformer.module import Float16Module
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.overrides import TorchFunctionMode

MULTIPLE = 24  # of which a vocabulary is padded to a multiple
SETTINGS = {
    "normalization": "RMSNorm",
    "activation_func": torch.nn.functional.silu,
    "gated_linear_unit": True,
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "use_cpu_initialization": True,
    "bias_activation_fusion": False,
    "apply_rope_fusion": False,
    "gradient_accumulation_fusion": False,
}


class OnCPU(TorchFunctionMode):
    """Makes on the CPU what is asked for on CUDA."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if str(kwargs.get("device", "")).startswith("cuda"):
            kwargs["device"] = "cpu"
        return function(*args, **kwargs)


def nothing(*_, **__):
    pass


torch.cuda.current_device = lambda: "cpu"
torch.cuda.synchronize = nothing
torch.Tensor.cuda = lambda tensor, *_, **__: tensor
tensor_parallel.model_parallel_cuda_manual_seed = nothing
CudaRNGStatesTracker.fork = lambda *_: nullcontext()
OnCPU().__enter__()


class Norm(torch.nn.RMSNorm):
    """RMSNorm as Transformer Engine has it: on this rank's part of the sequence."""

    def __init__(self, config, hidden_size, eps=1e-5, **_):
        super().__init__(hidden_size, eps)


class Attention(torch.nn.Module):
    """Causal attention over packed or padded rows whose parts the ranks of context parallelism share."""

    def __init__(self, config, layer_number, attn_mask_type, attention_type, **_):
        super().__init__()
        self.group = parallel_state.get_context_parallel_group()

    def forward(self, query, key, value, attention_mask, attn_mask_type=None, packed_seq_params=None, **_):
        packed = packed_seq_params is not None
        if packed:
            query, key, value = (x[:, None] for x in (query, key, value))
            padded = packed_seq_params.cu_seqlens_q_padded
            bounds = (packed_seq_params.cu_seqlens_q if padded is None else padded).tolist()
        else:
            bounds = [0, query.shape[0] * self.group.size()]
        places = [places_of(bounds, rank, self.group.size()) for rank in range(self.group.size())]
        own, every = places[self.group.rank()], torch.cat(places)
        key, value = (gather(x, self.group) for x in (key, value))
        allowed = (own[:, None, 0] == every[None, :, 0]) & (own[:, None, 1] >= every[None, :, 1])
        query, key, value = (x.permute(1, 2, 0, 3) for x in (query, key, value))
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        found = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        found = found.permute(2, 0, 1, 3)
        return found[:, 0] if packed else found.flatten(2)


def places_of(bounds, rank, ranks):
    """The sequence and the place in it [n, 2] of each token of a rank: of its first and its last piece."""
    places = []
    for sequence, (start, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
        pieces = torch.arange(end - start).chunk(2 * ranks)
        own = torch.cat([pieces[rank], pieces[-1 - rank]]) if ranks > 1 else torch.arange(end - start)
        places.append(torch.stack([torch.full_like(own, sequence), own], dim=1))
    return torch.cat(places)


def gather(array, group):
    parts = [torch.empty_like(array) for _ in range(group.size())]
    torch.distributed.all_gather(parts, array.contiguous(), group=group)
    return torch.cat(parts)


def make_model(hf, bf16=False, **parallel):
    """A GPTModel of this rank's layers for a Hugging Face config; `parallel` are settings of Megatron's."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    precision = {"bf16": bf16, "params_dtype": dtype, "pipeline_dtype": dtype}
    config = TransformerConfig(**settings_of(hf), **SETTINGS, **parallel, **precision)
    model = GPTModel(
        config=config,
        transformer_layer_spec=block_spec(config),
        vocab_size=padded_size(hf.vocab_size, config.tensor_model_parallel_size),
        max_sequence_length=hf.max_position_embeddings,
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
        position_embedding_type="rope",
        rotary_base=hf.rope_parameters["rope_theta"],
        share_embeddings_and_output_weights=hf.tie_word_embeddings,
    )
    return Float16Module(config, model) if bf16 else model


def settings_of(hf):
    """megatron-core's settings for this Hugging Face model."""
    return {
        "num_layers": hf.num_hidden_layers,
        "hidden_size": hf.hidden_size,
        "ffn_hidden_size": hf.intermediate_size,
        "num_attention_heads": hf.num_attention_heads,
        "num_query_groups": hf.num_key_value_heads,
        "layernorm_epsilon": hf.rms_norm_eps,
    }


def block_spec(config):
    """megatron-core's own layers of this stage, with these norms and this attention."""
    layer = get_gpt_layer_local_spec(normalization="RMSNorm")
    layer.submodules.input_layernorm = layer.submodules.pre_mlp_layernorm = Norm
    layer.submodules.self_attention.submodules.core_attention = Attention
    return TransformerBlockSubmodules([layer] * get_num_layers_to_build(config), Norm)


def padded_size(size, ranks):
    return -(-size // (MULTIPLE * ranks)) * MULTIPLE * ranks


@torch.no_grad()
def load_weights(model, hf):
    """Gives this rank's part of the Hugging Face model's weights to the module; padding rows get others."""
    model = getattr(model, "module", model)  # a model of 16 bits is wrapped
    weights, config = hf.state_dict(), hf.config
    rank = parallel_state.get_tensor_model_parallel_rank()
    ranks = parallel_state.get_tensor_model_parallel_world_size()

    def split(array, dim):
        return array.chunk(ranks, dim=dim)[rank]

    own = {}
    for name, place in (("embedding.word_embeddings", "model.embed_tokens"), ("output_layer", "lm_head")):
        whole = weights[f"{place}.weight"]
        padding = padded_size(len(whole), ranks) - len(whole)
        # As large as real ones, so that a statistic that reads them is wrong.
        own[f"{name}.weight"] = split(torch.cat([whole, 2 * whole[:1].expand(padding, -1)]), 0)
    own["decoder.final_layernorm.weight"] = weights["model.norm.weight"]
    for local, layer in enumerate(model.decoder.layers):
        given = {k.removeprefix(f"model.layers.{layer.layer_number - 1}."): v for k, v in weights.items()}
        to = f"decoder.layers.{local}."
        own[to + "input_layernorm.weight"] = given["input_layernorm.weight"]
        own[to + "pre_mlp_layernorm.weight"] = given["post_attention_layernorm.weight"]
        for kind in ("weight", "bias"):
            groups = config.num_key_value_heads
            parts = [given[f"self_attn.{x}_proj.{kind}"].unflatten(0, (groups, -1)) for x in "qkv"]
            own[to + f"self_attention.linear_qkv.{kind}"] = split(torch.cat(parts, dim=1), 0).flatten(0, 1)
        own[to + "self_attention.linear_proj.weight"] = split(given["self_attn.o_proj.weight"], 1)
        gate, up = (split(given[f"mlp.{x}_proj.weight"], 0) for x in ("gate", "up"))
        own[to + "mlp.linear_fc1.weight"] = torch.cat([gate, up])
        own[to + "mlp.linear_fc2.weight"] = split(given["mlp.down_proj.weight"], 1)
    for name, parameter in model.named_parameters():
        parameter.copy_(own[name])
