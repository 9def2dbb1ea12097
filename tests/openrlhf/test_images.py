"""Statistics of rows with no, one or two images, against plain float64 forwards of each row by itself."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
import vision_models
from openrlhf.models import Actor
from openrlhf.utils.vlm_utils import process_prompt_with_images
from transformers import AutoModelForImageTextToText

from credit.adapters.fields import STATISTICS
from credit.adapters.openrlhf.worker import Base, CreditPolicyModelActor

TEMPERATURE = 1.3
SIZES = [[(12, 8)], [], [(8, 16), (16, 8)], [(16, 16)]]  # of the images of each row
FAMILIES = {
    "qwen2.5-vl": (vision_models.qwen25, "<|vision_start|><|image_pad|><|vision_end|>", "mm_token_type_ids"),
    "gemma3": (vision_models.gemma3, "<boi>", "token_type_ids"),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """The folders of two models, what stands for an image in their prompts, and their name of token types."""
    make, place, kinds = FAMILIES[request.param]
    folder, paths = tmp_path_factory.mktemp("models"), []
    for seed in (0, 1):
        model, processor = make(seed)
        paths.append(str(folder / str(seed)))
        model.bfloat16().save_pretrained(paths[-1])  # what Actor would round to
    return SimpleNamespace(paths=paths, processor=processor, place=place, kinds=kinds)


def make_rows(family):
    """The token ids of each row, the length of its response, and what OpenRLHF's processing makes of its images."""
    generator, rows = torch.Generator().manual_seed(0), []
    for row, sizes in enumerate(SIZES):
        pictures = [vision_models.picture(10 * row + place, *size) for place, size in enumerate(sizes)]
        prompt = family.place * len(sizes) + "".join(str((row + digit) % 10) for digit in range(row + 2))
        ids, inputs, _ = process_prompt_with_images(family.processor, prompt, pictures or None)
        response = torch.randint(3, 12, (3 + row % 3,), generator=generator)
        rows.append((torch.cat([torch.tensor(ids), response]), len(response), inputs))
    return rows


def pad(rows):
    """Sequences, action mask and attention mask as OpenRLHF's micro-batches have them, padded to the right."""
    width = max(len(ids) for ids, _, _ in rows)
    sequences = torch.zeros(len(rows), width, dtype=torch.long)
    attention, actions = torch.zeros_like(sequences), torch.zeros(len(rows), width - 1, dtype=torch.long)
    for row, (ids, response, _) in enumerate(rows):
        sequences[row, : len(ids)], attention[row, : len(ids)] = ids, 1
        actions[row, len(ids) - response - 1 : len(ids) - 1] = 1
    return sequences, actions, attention


@torch.no_grad()
def log_probs(path, family, ids, inputs):
    """log p [T - 1, V] of the row of these ids alone, in float64."""
    model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float64, attn_implementation="sdpa")
    if inputs:
        kinds = {family.kinds: (ids == model.config.image_token_id).int()[None]}
        inputs = inputs | kinds | {"pixel_values": inputs["pixel_values"].double()}
    logits = model(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None], **inputs or {}).logits
    return (logits[0, :-1] / TEMPERATURE).log_softmax(-1)


def expected(family, rows):
    """The statistics of each row's response, by their definitions."""
    for ids, response, inputs in rows:
        lp, lq = (log_probs(path, family, ids, inputs)[-response:] for path in family.paths)
        p, chosen = lp.exp(), ids[-response:, None]
        yield {
            "log_probs": lp.gather(-1, chosen)[:, 0],
            "reference_log_probs": lq.gather(-1, chosen)[:, 0],
            "normalized_entropy": -(p * lp).sum(-1) / torch.tensor(lp.shape[-1]).log(),
            "deviation": ((lp / 2).exp() - (lq / 2).exp()).square().sum(-1) / 2,
            "extra.kl": (p * (lp - lq)).sum(-1),
        }


def make_worker(paths):
    """OpenRLHF's policy worker as far as it scores, with a policy and a reference."""
    worker = CreditPolicyModelActor.__new__(CreditPolicyModelActor)
    worker.actor, reference = (
        Actor(path, attn_implementation="sdpa", temperature=TEMPERATURE) for path in paths
    )
    for actor in (worker.actor, reference):
        actor.model.float()
        actor.eval()
    worker.strategy = SimpleNamespace(ring_attn_group=None)
    worker._credit_fields, worker._credit_statistics = STATISTICS, []
    worker._credit_reference = lambda: nullcontext(reference)
    return worker


@pytest.mark.parametrize("chosen", [[0, 1, 2, 3], [2, 0], [1]])
def test_each_row_is_scored_with_its_own_images(family, chosen):
    rows = [make_rows(family)[row] for row in chosen]
    worker = make_worker(family.paths)
    assert worker.actor.is_vlm
    batch, images = pad(rows), [inputs for _, _, inputs in rows]
    log_probs = worker.forward(*batch, None, images)
    assert torch.equal(log_probs, Base.forward(worker, *batch, None, images))
    (found,) = worker._credit_statistics
    for row, wanted in enumerate(expected(family, rows)):
        mask = batch[1][row].bool()
        for name, values in wanted.items():
            assert (found[name][row][mask] - values).abs().max() < 5e-6, name
        assert found["deviation"][row][mask].max() > 1e-3


def test_equal_models_deviate_by_exactly_0(family):
    rows = make_rows(family)
    worker = make_worker([family.paths[0]] * 2)
    worker.forward(*pad(rows), None, [inputs for _, _, inputs in rows])
    (found,) = worker._credit_statistics
    assert (found["deviation"] == 0).all()


def test_an_image_changes_the_statistics_of_its_row_alone(family):
    worker, rows = make_worker(family.paths), make_rows(family)
    images = [inputs for _, _, inputs in rows]
    worker.forward(*pad(rows), None, images)
    images[2] = images[2] | {"pixel_values": -images[2]["pixel_values"]}
    worker.forward(*pad(rows), None, images)
    before, after = (found["log_probs"] for found in worker._credit_statistics)
    changes = [(before - after)[row][pad(rows)[1][row].bool()].abs().max() for row in range(len(rows))]
    assert changes[2] > 1e-4 > 10 * max(changes[:2] + changes[3:])
