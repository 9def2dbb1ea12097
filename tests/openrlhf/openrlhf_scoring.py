"""Small models, a batch, and its statistics in float64 by their definitions."""

import tiny_model
import torch
from transformers import AutoModelForCausalLM

TEMPERATURE = 1.3


def save_models(folder):
    """The folders of two small models."""
    for seed in (0, 1):
        made = tiny_model.small_qwen2(16, hidden_size=32, layers=2, seed=seed)
        made.bfloat16().save_pretrained(folder / str(seed))  # what Actor would round to
    return [str(folder / str(seed)) for seed in (0, 1)]


def batch(last=5):
    """Three rows of at most 12 tokens, of which the last has that many."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([[9], [12], [last]])
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
