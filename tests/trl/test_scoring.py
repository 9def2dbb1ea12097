"""The adapter's statistics against plain Hugging Face forwards in float64."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from small_models import cohere, gemma2, granite, qwen2

import credit
from credit.adapters.fields import STATISTICS
from credit.adapters.trl import forward, statistics


@pytest.mark.releases
@pytest.mark.parametrize("make", [qwen2, gemma2, cohere, granite])
@pytest.mark.parametrize("budget_mb", [1e-6, 256.0])  # a row at a time, and all of them
def test_statistics_equal_a_float64_forward(make, budget_mb):
    policy, reference = make(0), make(1)
    trainer = SimpleNamespace(
        model=policy.train(),
        ref_model=reference.eval(),
        accelerator=Accelerator(cpu=True),
        temperature=0.7,
        args=SimpleNamespace(
            gradient_checkpointing_kwargs=None, statistics_memory_mb=budget_mb, cast_lm_head_to_fp32=False
        ),
        credit_estimator=credit.DGPO(),
        credit=SimpleNamespace(kept=None),
    )
    for model in (policy, reference):
        forward.prepare_head(trainer, model)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 40, (5, 15), generator=generator)
    attention = torch.ones_like(ids)
    if make is not gemma2:  # transformers gives NaN for a left-padded Gemma 2 in float64
        attention[0, :3] = 0
    attention[1, -4:] = 0
    mask = attention[:, 6:] * (torch.rand(5, 9, generator=generator) < 0.8)  # with holes, as of tools
    output = {
        "prompt_ids": ids[:, :6],
        "prompt_mask": attention[:, :6],
        "completion_ids": ids[:, 6:],
        "completion_mask": attention[:, 6:],
    }
    seen = []
    hooks = [
        model.lm_head.register_forward_hook(lambda _, __, logits: seen.append(logits.shape[1]))
        for model in (policy, reference)
    ]
    fields = statistics.compute_statistics(trainer, output, mask, STATISTICS)
    for hook in hooks:
        hook.remove()
    assert all(positions <= 2 for positions in seen)  # before TRL 1.15 the head runs, but never on [B, T]
    assert bool(seen) != forward.FUSED
    expected = in_float64(policy, reference, ids, attention, 0.7)
    chosen = mask.bool().numpy()
    assert expected.keys() == set(STATISTICS)
    for name, values in expected.items():
        ours = fields[name].numpy()
        assert np.abs(ours - values[:, 5:-1])[chosen].max() < 5e-6, name
        assert (ours[~chosen] == 0).all()
    assert policy.training


def in_float64(policy, reference, ids, attention, temperature):
    def log_softmax(model):
        with torch.no_grad():
            logits = model.double().eval()(input_ids=ids, attention_mask=attention).logits
        return (logits.double() / temperature).log_softmax(-1)

    lp, lq = log_softmax(policy), log_softmax(reference)
    for model in (policy, reference):
        model.float()
    policy.train()
    next_ids = ids.roll(-1, dims=1)[..., None]
    roots = (lp / 2).exp() - (lq / 2).exp()
    fields = {
        "log_probs": lp.gather(-1, next_ids)[..., 0],
        "reference_log_probs": lq.gather(-1, next_ids)[..., 0],
        "normalized_entropy": -(lp.exp() * lp).sum(-1) / np.log(lp.shape[-1]),
        "deviation": 0.5 * roots.square().sum(-1),
        "extra.sum_squares": (2 * lp).exp().sum(-1),
        "extra.entropy": -(lp.exp() * lp).sum(-1),
        "extra.kl": (lp.exp() * (lp - lq)).sum(-1),
        "extra.reverse_kl": (lq.exp() * (lq - lp)).sum(-1),
    }
    return {name: value.numpy() for name, value in fields.items()}
