"""A random Qwen2 with one token per character, a copy with noise on its weights, and sums as data."""

import json
import string

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer():
    vocabulary = [*SPECIAL, *string.digits, *string.ascii_lowercase, *"+-=> ,.?\n"]
    inner = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    inner.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        unk_token="<unk>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_models(folder, **config):
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=False,
            use_sliding_window=False,
            pad_token_id=0,
            eos_token_id=2,
            bos_token_id=None,
            **config,
        )
    )
    with torch.no_grad():
        model.lm_head.weight.mul_(10)  # so that some tokens are likelier than others
    for name in ("model", "reference"):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * parameter.std().nan_to_num() * torch.randn_like(parameter))
    rows = (
        {"messages": [{"role": "user", "content": f"{a}+{b * '1'}="}], "solution": str(a), "place": 4 * a + b}
        for a in range(4)
        for b in range(4)
    )
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
