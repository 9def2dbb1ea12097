"""What ranks of score_rank.py have written, and what the statistics of a row are by their definitions."""

from pathlib import Path

import score_rank
import tiny_model
import torch


def save_model(path, tied=False):
    """Saves a random Qwen2 of characters with its tokenizer."""
    tokenizer = tiny_model.character_tokenizer()
    model = tiny_model.small_qwen2(len(tokenizer), hidden_size=32, layers=2)
    model.config.tie_word_embeddings = tied
    type(model)(model.config).save_pretrained(path)
    tokenizer.save_pretrained(path)


def collect(out, ranks, layouts, rows):
    """What the ranks have written: layout, the policy's weights and the rows' statistics, in order.

    Each of the reference's forwards goes with one of the policy, and its head makes logits of two positions.
    """
    found = [torch.load(Path(out) / f"{rank}.pt") for rank in range(ranks)]
    for place, name in enumerate(layouts):
        for counts in (part[place][2] for part in found):
            assert_one_forward_each(name, counts)
        parts = [part[place][1] for part in found]
        parts = [part for part in parts if part["entropy"]]  # ranks that share sequences return them once
        each = [(parts[row % len(parts)], row // len(parts)) for row in range(rows)]
        yield name, found[0][place][0], [{k: v[place] for k, v in part.items()} for part, place in each]


def assert_one_forward_each(layout, counts):
    assert counts["micro_batches"] > 1
    if layout == "logits_lora":
        return  # the engine makes outputs of the reference too, so these are not counted apart
    models = 2 if layout == "lora" else 1  # without its adapter the policy is the reference
    assert counts["policy"] == models * counts["micro_batches"], layout
    assert counts["reference"] == (0 if layout == "lora" else counts["micro_batches"]), layout
    if layout.startswith("logits"):
        assert counts["reference_positions"] > 2 * counts["reference"]
        return
    positions = 0 if "fused" in layout else 2
    assert counts["reference_positions"] == positions * counts["reference"], layout


@torch.no_grad()
def expected(policy, reference, ids, **images):
    """The statistics of each next token from plain forwards of two models."""
    lp, lq = (
        (model(input_ids=ids[None], **images).logits[0, :-1] / score_rank.TEMPERATURE).log_softmax(-1)
        for model in (policy, reference)
    )
    next_ids = ids[1:, None]
    entropy = -(lp.exp() * lp).sum(-1)
    return {
        "log_probs": lp.gather(-1, next_ids)[:, 0],
        "entropy": entropy,
        "credit_log_probs": lp.gather(-1, next_ids)[:, 0],
        "credit_reference_log_probs": lq.gather(-1, next_ids)[:, 0],
        "credit_normalized_entropy": entropy / torch.tensor(lp.shape[-1]).log(),
        "credit_deviation": ((lp / 2).exp() - (lq / 2).exp()).square().sum(-1) / 2,
        "credit_extra.sum_squares": (2 * lp).exp().sum(-1),
        "credit_extra.kl": (lp.exp() * (lp - lq)).sum(-1),
        "credit_extra.reverse_kl": (lq.exp() * (lq - lp)).sum(-1),
    }


def compare(row, expected, bound, layout):
    """Fails unless a row's statistics are within the bound; the largest deviation of its tokens."""
    for field, values in expected.items():
        ours = torch.tensor(row[field], dtype=torch.float64)[:-1]
        assert (ours - values).abs().max() < bound, (layout, field, (ours - values).abs().max())
    return expected["credit_deviation"].max().item()
