"""Statistics from OpenRLHF's Actor against plain Hugging Face forwards in float64."""

from contextlib import nullcontext

import pytest
import tiny_model
import torch
from openrlhf.models import Actor
from transformers import AutoModelForCausalLM

from credit.adapters.fields import STATISTICS
from credit.adapters.openrlhf import statistics

TEMPERATURE = 1.3


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of two small models."""
    folder = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        made = tiny_model.small_qwen2(16, hidden_size=32, layers=2, seed=seed)
        made.bfloat16().save_pretrained(folder / str(seed))  # what Actor would round to
    return [str(folder / str(seed)) for seed in (0, 1)]


def batch():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([[9], [12], [5]])
    sequences = torch.randint(3, 16, (3, 12), generator=generator)
    attention = (torch.arange(12) < lengths).long()
    actions = ((torch.arange(11) >= 2) & (torch.arange(11) < lengths - 1)).long()
    return sequences * attention, actions, attention


@torch.no_grad()
def expected(paths, sequences, attention):
    """The statistics [B, T - 1] of each next token, by their definitions."""
    lp, lq = (
        (
            AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64)(
                sequences, attention_mask=attention
            ).logits[:, :-1]
            / TEMPERATURE
        ).log_softmax(-1)
        for path in paths
    )
    next_ids = sequences[:, 1:, None]
    return {
        "log_probs": lp.gather(-1, next_ids)[..., 0],
        "reference_log_probs": lq.gather(-1, next_ids)[..., 0],
        "normalized_entropy": -(lp.exp() * lp).sum(-1) / torch.tensor(lp.shape[-1]).log(),
        "deviation": ((lp / 2).exp() - (lq / 2).exp()).square().sum(-1) / 2,
        "extra.sum_squares": (2 * lp).exp().sum(-1),
        "extra.entropy": -(lp.exp() * lp).sum(-1),
        "extra.kl": (lp.exp() * (lp - lq)).sum(-1),
        "extra.reverse_kl": (lq.exp() * (lq - lp)).sum(-1),
    }


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("compared", [True, False])
def test_statistics_equal_a_float64_forward(models, packed, compared):
    actors = []
    for path in models:
        actor = Actor(path, attn_implementation="sdpa", temperature=TEMPERATURE, packing_samples=packed)
        actor.model.float().eval()
        actors.append(actor)
    sequences, actions, attention = batch()
    with torch.no_grad():
        reference = nullcontext(actors[1] if compared else None)
        log_probs, found = statistics.score_tokens(
            actors[0], lambda: reference, sequences, actions, attention, names=STATISTICS
        )
    paths = models if compared else [models[0], models[0]]
    chosen = actions.bool()
    wanted = expected(paths, sequences, attention)
    assert wanted.keys() == set(STATISTICS)
    for name, values in wanted.items():
        assert (found[name] - values)[chosen].abs().max() < 5e-6, name
    torch.testing.assert_close(log_probs[chosen], found["log_probs"][chosen], rtol=0, atol=5e-6)
    assert (found["deviation"][chosen].max() > 1e-3) == compared
    if not compared:
        assert (found["deviation"] == 0).all()
