"""Small models, prompts and images in the form that OpenRLHF's scripts take."""

import json

import tiny_model
import torch
import vision_models
from transformers import Qwen2ForSequenceClassification

VISION_TOKENS = [f"<|{name}|>" for name in vision_models.VISION_TOKENS]
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def save_text_models(path):
    """A policy, a reward model, and prompts under both keys that the scripts read."""
    tokenizer = tiny_model.character_tokenizer()
    tokenizer.chat_template = TEMPLATE
    policy = tiny_model.small_qwen2(len(tokenizer), seed=0)
    policy.save_pretrained(path / "policy")
    config = policy.config
    config.num_labels = 1
    Qwen2ForSequenceClassification(config).save_pretrained(path / "reward_model")
    for name in ("policy", "reward_model"):
        tokenizer.save_pretrained(path / name)
    lines = []
    for prompt, label in tiny_model.problems("running_sums", 64, 1):
        chat = [{"role": "user", "content": prompt}]
        lines.append({"prompt": chat, "context_messages": chat, "label": label})
    write_lines(path / "data.jsonl", lines)


def save_vision_model(path):
    """A model that reads images, with its processor, whose code its folder holds."""
    model, processor = vision_models.qwen25()
    never_sample(model, processor.tokenizer.convert_tokens_to_ids(VISION_TOKENS))
    type(processor).register_for_auto_class("AutoProcessor")  # OpenRLHF loads the code of a model's folder
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return processor


@torch.no_grad()
def never_sample(model, tokens):
    """Gives these tokens a logit far below all others, as a trained model does with places of images."""
    model.get_input_embeddings().weight[:, 0] = 0.05
    model.lm_head.weight[:, 0] = 0.0
    model.lm_head.weight[tokens, 0] = -20.0


def save_pictures(path, count=8):
    """Prompts with a picture each."""
    lines = []
    for number in range(count):
        vision_models.picture(number).save(path / f"{number}.png")
        content = [{"type": "image"}, {"type": "text", "text": f"{number}+{number}"}]
        chat = [{"role": "user", "content": content}]
        lines.append({"prompt": chat, "images": [str(path / f"{number}.png")], "label": str(2 * number)})
    write_lines(path / "pictures.jsonl", lines)


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
