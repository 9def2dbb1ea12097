"""Tiny models of two families that read images, with the real processors of transformers."""

import numpy as np
import tiny_model
import torch
from image_processor import ImageOnlyProcessor
from PIL import Image
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": tiny_model.PAD,
    "eos_token_id": tiny_model.EOS,
    "bos_token_id": None,
}
TEMPLATE = (
    "{% for message in messages %}{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{{ 'IMAGE' if part.type == 'image' else part.text }}{% endfor %}"
    "{% endif %}{% endfor %}>"
)


def picture(seed, width=12, height=8):
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def gemma3_processor():
    tokenizer = tiny_model.character_tokenizer()
    tokens = {"boi_token": "<boi>", "eoi_token": "<eoi>", "image_token": "<image>"}
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens.values())})
    tokenizer = type(tokenizer)(
        tokenizer_object=tokenizer.backend_tokenizer,
        padding_side="left",
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        extra_special_tokens=tokens,
    )
    images = Gemma3ImageProcessorPil(size={"height": 28, "width": 28})
    return Gemma3Processor(
        images, tokenizer, chat_template=TEMPLATE.replace("IMAGE", "<boi>"), image_seq_length=4
    )


def gemma3(seed=0):
    processor = gemma3_processor()
    tokenizer = processor.tokenizer
    torch.manual_seed(seed)
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config=TEXT | {"vocab_size": len(tokenizer), "head_dim": 8},
            vision_config=vision | {"image_size": 28, "patch_size": 7},
            mm_tokens_per_image=4,
            image_token_index=tokenizer.image_token_id,
            boi_token_index=tokenizer.boi_token_id,
            eoi_token_index=tokenizer.eoi_token_id,
        )
    )
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.5)
    return model, processor


VISION_TOKENS = ("vision_start", "vision_end", "image_pad", "video_pad")


def qwen25_processor():
    tokenizer = tiny_model.character_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{name}|>" for name in VISION_TOKENS]})
    images = Qwen2VLImageProcessorPil(
        patch_size=4, temporal_patch_size=1, merge_size=2, min_pixels=64, max_pixels=64 * 8
    )
    place = "<|vision_start|><|image_pad|><|vision_end|>"
    return ImageOnlyProcessor(images, tokenizer, chat_template=TEMPLATE.replace("IMAGE", place))


def qwen25(seed=0):
    processor = qwen25_processor()
    tokenizer = processor.tokenizer
    start, _, image, video = (tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in VISION_TOKENS)
    torch.manual_seed(seed)
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    patches = {"patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 1, "window_size": 16}
    model = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config=TEXT | {"vocab_size": len(tokenizer), "rope_parameters": rope},
            vision_config=vision | patches | {"fullatt_block_indexes": [0]},
            image_token_id=image,
            video_token_id=video,
            vision_start_token_id=start,
        )
    )
    return model, processor
