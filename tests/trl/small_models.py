"""Models of the families that make logits in their own ways: tied heads, soft caps, scales."""

import tiny_model
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
)

SMALL = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def qwen2(seed):
    return tiny_model.small_qwen2(40, hidden_size=32, layers=2, seed=seed)


def gemma2(seed):
    torch.manual_seed(seed)
    return Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=2.0))


def cohere(seed):
    torch.manual_seed(seed)
    return CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.25))


def granite(seed):
    torch.manual_seed(seed)
    return GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=0.3))
