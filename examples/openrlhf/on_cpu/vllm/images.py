"""Prompts with images: one placeholder token for each, which is expanded as vLLM does."""

from typing import Any

import torch
from transformers import AutoProcessor


class Images:
    """The processor of a model that reads images as Qwen's do; of one that reads text alone, a refusal."""

    def __init__(self, model: str, reads_images: bool, limit: int) -> None:
        self.limit = limit
        self.processor: Any = None
        if reads_images:
            self.processor = AutoProcessor.from_pretrained(model, trust_remote_code=True)

    def expand(self, ids: list[int], images: list[Any], dtype: torch.dtype) -> tuple[list[int], dict]:
        """The prompt's ids with as many tokens as each image takes, and what the model's first pass reads."""
        if not images:
            return ids, {}
        if self.processor is None:
            raise ValueError("the model reads no images, but the prompt has some")
        if len(images) > self.limit:
            raise ValueError(f"the prompt has {len(images)} images; limit_mm_per_prompt allows {self.limit}")
        place, made = (
            self.processor.image_token_id,
            self.processor.image_processor(images, return_tensors="pt"),
        )
        if ids.count(place) != len(images):
            raise ValueError(f"the prompt has {ids.count(place)} placeholders for {len(images)} images")
        grid = made["image_grid_thw"]
        sizes = iter((grid.prod(dim=-1) // self.processor.image_processor.merge_size**2).tolist())
        expanded = [token for each in ids for token in ([place] * next(sizes) if each == place else [each])]
        inputs = {"pixel_values": made["pixel_values"].to(dtype), "image_grid_thw": grid}
        return expanded, inputs | {"mm_token_type_ids": (torch.tensor([expanded]) == place).int()}
