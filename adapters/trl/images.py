"""What a model reads beside the tokens of chosen rows of TRL's batch: their images, by TRL's own rules."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from trl import GRPOTrainer

Tensor = torch.Tensor
TOKEN_INPUTS = ("token_type_ids", "mm_token_type_ids")  # [B, L], of prompt and completion
IMAGE_INPUTS = (
    "pixel_values",
    "pixel_attention_mask",
    "image_grid_thw",
    "image_position_ids",
    "image_sizes",
    "spatial_shapes",
)


def has_images(batch: Mapping[str, Any]) -> bool:
    """Whether TRL's batch holds images, in prompts or in what tools returned."""
    return batch.get("pixel_values") is not None


def refuse_unknown_inputs(model: Any, batch: Mapping[str, Any]) -> None:
    """Raises ValueError for an input of the model that `select_inputs` does not know and would leave out."""
    takers = (model.forward, GRPOTrainer._get_per_token_logps_and_entropies)
    inputs = {name for taker in takers for name in inspect.signature(taker).parameters}
    inputs -= {"num_items_in_batch"}  # of the loss, which no log-prob depends on
    known = {*TOKEN_INPUTS, *IMAGE_INPUTS, "num_images", "num_tiles"}
    unknown = [name for name, value in batch.items() if name in inputs - known and value is not None]
    if unknown:
        raise ValueError(
            f"the model reads {unknown[0]!r} of TRL's batch, and token statistics are computed with "
            f"{', '.join(sorted(known))} only; use an estimator that reads rewards alone, such as grpo"
        )


def select_inputs(batch: Mapping[str, Any], rows: Tensor, columns: slice) -> dict[str, Tensor]:
    """The inputs beside ids and attention mask for some rows, and the columns of those that have columns.

    Rows without images get no arrays of images: TRL passes empty ones there, at which vision towers fail.
    """
    given = [name for name in TOKEN_INPUTS if batch.get(name) is not None]
    found = {name: batch[name][rows][:, columns] for name in given}
    chosen = rows.tolist()
    for name, counts in _count_entries(batch).items():
        values = batch[name]
        if len(values) != sum(counts):
            raise ValueError(
                f"{name} has {len(values)} entries, but those of the rows' images are {sum(counts)}; the "
                "processor splits images in a way that TRL does not pass on"
            )
        if any(counts[row] for row in chosen):
            parts = values.split(counts)
            found[name] = torch.cat([parts[row] for row in chosen])
    return found


def _count_entries(batch: Mapping[str, Any]) -> dict[str, list[int]]:
    """How many entries of each array of images belong to each row of the batch.

    An entry is a patch (Qwen), a tile (LFM2-VL, InternVL), an image (Gemma, LLaVA) or all images of a row,
    padded to as many (Idefics).
    """
    if not has_images(batch):
        return {}
    given = [name for name in IMAGE_INPUTS if batch.get(name) is not None]
    of_row = [1] * len(batch["completion_ids"])
    images, tiles = batch.get("num_images") or of_row, batch.get("num_tiles")
    counts = dict.fromkeys(given, images) | {"pixel_attention_mask": of_row}
    if "image_grid_thw" in given:
        patches = batch["image_grid_thw"].prod(dim=-1).split(images)
        counts["pixel_values"] = [int(each.sum()) for each in patches]
    elif "spatial_shapes" in given:
        counts |= dict.fromkeys(("pixel_values", "pixel_attention_mask", "spatial_shapes"), tiles)
    elif tiles is not None:
        counts["pixel_values"] = tiles
    elif "image_position_ids" not in given and len(batch["pixel_values"]) != sum(images):
        counts["pixel_values"] = of_row
    return {name: counts[name] for name in given}
