"""The inputs that scoring selects for rows, against those that TRL's own function passes to its model."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from trl import GRPOTrainer
from vision_models import qwen25

from credit.adapters.trl import images

IMAGES, TILES = [1, 2, 0, 3], [2, 3, 0, 4]
ROWS, PROMPT, WIDTH = len(IMAGES), 3, 7


def numbers(*shape):
    return torch.arange(int(torch.tensor(shape).prod())).reshape(shape)


GRID = torch.tensor([[1, 2, 2], [1, 2, 4], [1, 4, 4], [1, 2, 2], [2, 2, 2], [1, 2, 6]])
LAYOUTS = {
    "text": {"mm_token_type_ids": numbers(ROWS, WIDTH)},
    "grid": {
        "pixel_values": numbers(int(GRID.prod(dim=1).sum()), 5),
        "image_grid_thw": GRID,
        "mm_token_type_ids": numbers(ROWS, WIDTH),
        "num_images": IMAGES,
    },
    "positions": {
        "pixel_values": numbers(6, 5, 3),
        "image_position_ids": numbers(6, 5, 2),
        "num_images": IMAGES,
    },
    "tiles of their shapes": {
        "pixel_values": numbers(9, 4, 3),
        "pixel_attention_mask": numbers(9, 4),
        "spatial_shapes": numbers(9, 2),
        "num_images": IMAGES,
        "num_tiles": TILES,
    },
    "tiles": {"pixel_values": numbers(9, 3, 2, 2), "num_images": IMAGES, "num_tiles": TILES},
    "images": {
        "pixel_values": numbers(6, 3, 2, 2),
        "image_sizes": numbers(6, 2),
        "token_type_ids": numbers(ROWS, WIDTH),
        "num_images": IMAGES,
    },
    "rows": {
        "pixel_values": numbers(ROWS, 3, 3, 2, 2),
        "pixel_attention_mask": numbers(ROWS, 3, 2, 2),
        "num_images": IMAGES,
    },
}


def trls_calls(given, size):
    """What TRL gives to its model for each `size` rows."""
    trainer = GRPOTrainer.__new__(GRPOTrainer)
    trainer.accelerator, trainer.temperature = Accelerator(cpu=True), 1.0
    calls = []

    def model(**inputs):
        calls.append(inputs)
        shape = inputs["input_ids"].shape
        return SimpleNamespace(log_probs=torch.zeros(shape))

    ids = numbers(ROWS, WIDTH)
    trainer._get_per_token_logps_and_entropies(model, ids, ids, WIDTH - PROMPT, batch_size=size, **given)
    others = ("input_ids", "attention_mask", "labels", "fused_lm_head")
    return [{name: value for name, value in call.items() if name not in others} for call in calls]


def selected(given, rows, width=WIDTH):
    batch = {"completion_ids": numbers(ROWS, WIDTH - PROMPT), **given}
    return images.select_inputs(batch, torch.tensor(rows), slice(width))


def assert_same(ours, theirs):
    theirs = {name: value for name, value in theirs.items() if len(value)}  # none where TRL passes empty ones
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_get_what_trl_passes_for_them(layout):
    given = LAYOUTS[layout]
    halves = trls_calls(given, 2)
    assert_same(selected(given, [0, 1]), halves[0])
    assert_same(selected(given, [2, 3]), halves[1])
    single = trls_calls(given, 1)
    mixed = {name: torch.cat([single[row][name] for row in (3, 2, 0)]) for name in single[0]}
    assert_same(selected(given, [3, 2, 0]), mixed)
    assert_same(selected(given, [2]), single[2])


def test_columns_are_cut_where_there_are_columns():
    given = LAYOUTS["grid"]
    cut = selected(given, [1, 0], width=5)
    assert torch.equal(cut["mm_token_type_ids"], given["mm_token_type_ids"][[1, 0], :5])
    assert cut["pixel_values"].shape == (24 + 4, 5)


def test_images_that_the_rows_do_not_account_for_are_an_error():
    with pytest.raises(ValueError, match="pixel_values has 9 entries, but those of the rows' images are 4"):
        selected({"pixel_values": numbers(9, 3, 2, 2), "num_images": IMAGES}, [0])


def test_an_input_of_the_model_that_is_not_known_is_an_error():
    model, _ = qwen25()
    batch = {"completion_ids": numbers(2, 2), "num_items_in_batch": torch.tensor(3), **LAYOUTS["grid"]}
    images.refuse_unknown_inputs(model, batch | {"advantages": numbers(2), "tool_mask": numbers(2, 2)})
    with pytest.raises(ValueError, match="reads 'video_grid_thw' of TRL's batch"):
        images.refuse_unknown_inputs(model, batch | {"video_grid_thw": GRID})
