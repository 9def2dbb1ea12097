"""As score_rank.py, with rows of which some have images: python score_images_rank.py MODEL OUT OVERRIDES

Started by test_images.py. Images and positions go into the batch by the functions of verl's agent loop.
"""

import sys
from types import MethodType, SimpleNamespace

import score_rank
import torch
import vision_models
from transformers.models.qwen2_5_vl import Qwen2_5_VLModel
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
from verl.utils import tensordict_utils as tu

# Of each row, width and height. On every rank each micro-batch has an image: verl fails at one without in
# transformers 5, whose vision towers return an object.
IMAGES = [[(12, 8)], [(8, 16), (16, 8)], [], [], [(16, 16)], [(8, 8)], [], []]
PLACE = "<|vision_start|><|image_pad|><|vision_end|>"


def rows():
    """Prompts and responses as verl's agent loop returns them, with the images of each prompt."""
    processor, generator = vision_models.qwen25_processor(), torch.Generator().manual_seed(0)
    found = []
    for row, sizes in enumerate(IMAGES):
        pictures = [vision_models.picture(10 * row + place, *size) for place, size in enumerate(sizes)]
        text = PLACE * len(sizes) + "".join(str((row + digit) % 10) for digit in range(row + 2)) + ">"
        inputs = processor(text=[text], images=pictures or None, return_tensors="pt")
        response = torch.randint(3, 12, (3 + row % 4,), generator=generator)
        found.append(SimpleNamespace(prompt=inputs["input_ids"][0], response=response, images=pictures))
    return found


def batch(chosen, **asked):
    """Rows as verl's trainer sends them."""
    loop = make_loop()
    data = tu.list_of_dict_to_tensordict([make_fields(loop, row) for row in chosen])
    lengths = [len(row.prompt) + len(row.response) for row in chosen]
    return score_rank.assign_options(data, lengths, **asked)


def make_fields(loop, row):
    ids = torch.cat([row.prompt, row.response])
    output = SimpleNamespace(multi_modal_data={"images": row.images or None}, mm_processor_kwargs={})
    inputs = AgentLoopWorker._compute_multi_modal_inputs(loop, output, ids)
    positions = AgentLoopWorker._compute_position_ids(loop, ids[None], torch.ones_like(ids)[None], inputs)
    ones = torch.ones_like(row.response)
    return {
        "prompts": row.prompt,
        "responses": row.response,
        "response_mask": ones,
        "loss_mask": ones,
        "input_ids": ids,
        "position_ids": positions.squeeze(0),
        "multi_modal_inputs": inputs,
    }


def make_loop():
    """What verl's agent loop holds; it gives processors the positions of their model in this way."""
    model, processor = vision_models.qwen25()
    processor.config = model.config
    for name in ("get_rope_index", "get_vision_position_ids"):
        setattr(processor, name, MethodType(getattr(Qwen2_5_VLModel, name), processor))
    return SimpleNamespace(processor=processor, tokenizer=processor.tokenizer)


if __name__ == "__main__":
    score_rank.main(sys.modules[__name__], *sys.argv[1:])
