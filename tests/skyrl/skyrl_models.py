"""A random Qwen2 with one token per character, a copy of it with noise on its weights, and responses to sums."""

import random

import tiny_model
import torch
from transformers import AutoModelForCausalLM

CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
TOOL, EOS = 5, tiny_model.EOS


def make_models(folder, tied=False):
    """Two models, `model` and `reference`, and the tokenizer beside each."""
    tokenizer = tiny_model.character_tokenizer()
    tokenizer.chat_template = CHAT
    model = tiny_model.small_qwen2(len(tokenizer), hidden_size=32, layers=2)
    if tied:
        model.config.tie_word_embeddings = True
        model = type(model)(model.config)
    with torch.no_grad():
        model.lm_head.weight.mul_(10)  # so that some tokens are likelier than others
    for name in ("model", "reference"):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * parameter.std().nan_to_num() * torch.randn_like(parameter))


def load_float64(path, weights=None):
    """The plain model, with other weights if they are given."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    if weights is not None:
        model.config.tie_word_embeddings = False  # SkyRL's FSDP trains tied weights apart
        model = type(model)(model.config)
        model.load_state_dict(weights)
    return model.double().eval()


def make_output(prompts=2, size=4, seed=0, tool=True):
    """What a generator returns: prompts and responses of several lengths, with the output of a tool in some."""
    rng, rows = random.Random(seed), []
    for prompt in range(prompts):
        ids = [rng.randrange(6, 15) for _ in range(2 + 3 * prompt)]
        for response in range(size):
            before, after = rng.randrange(1, 6), rng.randrange(1, 6)
            called = [TOOL] * (rng.randrange(1, 4) if tool and response % 2 else 0)
            tokens = [rng.randrange(6, 15) for _ in range(before)] + called
            tokens += [rng.randrange(6, 15) for _ in range(after)]
            mask = [1] * before + [0] * len(called) + [1] * after
            rows.append((ids, tokens, mask, float(rng.randrange(0, 4))))
    prompt_ids, responses, masks, rewards = (list(each) for each in zip(*rows, strict=True))
    return {
        "prompt_token_ids": prompt_ids,
        "response_ids": responses,
        "rewards": rewards,
        "loss_masks": masks,
        "stop_reasons": ["stop"] * len(rows),
        "rollout_logprobs": [[-1.0 - 0.01 * t for t in range(len(row))] for row in responses],
        "rollout_metrics": None,
    }


def list_uids(prompts=2, size=4):
    return [str(prompt) for prompt in range(prompts) for _ in range(size)]
