"""A small model, and the statistics of its tokens by plain Hugging Face forwards."""

import score_rank
import tiny_model
import torch


def save_model(path):
    """Saves a random Qwen2 of characters with its tokenizer."""
    tokenizer = tiny_model.character_tokenizer()
    tiny_model.small_qwen2(len(tokenizer), hidden_size=32, layers=2).save_pretrained(path)
    tokenizer.save_pretrained(path)


@torch.no_grad()
def expected(policy, reference, ids):
    """The statistics of each next token, by their definitions."""
    lp, lq = (
        (m(input_ids=ids[None]).logits[0, :-1] / score_rank.TEMPERATURE).log_softmax(-1)
        for m in (policy, reference)
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
