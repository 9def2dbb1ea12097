"""A Qwen2 model of random weights and a tokenizer of as many words, made on the spot."""

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM


def save(path: str, size: Any, device: str) -> int:
    """Saves both to `path`, in bfloat16 for a GPU; the number of parameters."""
    config = Qwen2Config(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=max(1, size.hidden // 64),
        num_key_value_heads=max(1, size.hidden // 512),
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config).to(torch.float32 if device == "cpu" else torch.bfloat16)
    model.save_pretrained(path)
    words = {word: i for i, word in enumerate(["<pad>", "<eos>", *map(str, range(2, size.vocabulary))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "padding_side": "left"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(path)
    return model.num_parameters()
