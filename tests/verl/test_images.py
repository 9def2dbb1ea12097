"""Statistics of rows with and without images from verl's actor worker against float64 forwards of single rows."""

import pytest
import score_images_rank
import scored_rows
import torch
import vision_models
from ranks import run
from transformers import AutoModelForImageTextToText

LAYOUTS = {
    "padded": "actor_rollout_ref.model.use_remove_padding=False",
    "packed": "actor_rollout_ref.model.use_remove_padding=True",
}
FIXED = (
    "actor_rollout_ref.actor.use_dynamic_bsz=False "
    "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=False "
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu={rows} "
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu={rows} "
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu={rows} "
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    model, processor = vision_models.qwen25()
    model.save_pretrained(path)
    processor.tokenizer.save_pretrained(path)
    return path


def load(path, weights=None):
    model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float64)
    if weights is not None:
        model.load_state_dict({name: weight.double() for name, weight in weights.items()})
    return model


def given_images(row, processor):
    """What transformers' own forward reads of a row with images."""
    if not row.images:
        return {}
    text = score_images_rank.PLACE * len(row.images)
    inputs = processor(text=[text], images=row.images, return_tensors="pt")
    kinds = torch.cat([row.prompt, row.response]) == processor.image_token_id
    return {
        "pixel_values": inputs["pixel_values"].double(),
        "image_grid_thw": inputs["image_grid_thw"],
        "mm_token_type_ids": kinds.long()[None],
    }


@pytest.mark.parametrize("ranks", [1, 2])
def test_statistics_of_rows_with_images(folder, tmp_path, ranks):
    rows, processor = score_images_rank.rows(), vision_models.qwen25_processor()
    fixed = FIXED.format(rows=4 // ranks)
    lines = [fixed + layout for layout in LAYOUTS.values()]
    run(score_images_rank.__file__, ranks, str(folder), str(tmp_path), *lines)
    reference = load(folder)
    for name, weights, found in scored_rows.collect(tmp_path, ranks, list(LAYOUTS), len(rows)):
        policy, largest = load(folder, weights), []
        for row, ours in zip(rows, found, strict=True):
            images, ids = given_images(row, processor), torch.cat([row.prompt, row.response])
            expected = scored_rows.expected(policy, reference, ids, **images)
            largest.append(scored_rows.compare(ours, expected, 5e-6, name))
            if images:  # else images that change nothing would pass as well
                without = scored_rows.expected(policy, reference, ids, **blank(images))
                changed = without["credit_deviation"] - expected["credit_deviation"]
                assert changed.abs().max() > 1e-5
        assert max(largest) > 1e-3, name


def blank(images):
    return images | {"pixel_values": torch.zeros_like(images["pixel_values"])}
