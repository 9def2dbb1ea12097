"""Logits to measure on, and how far an answer is from float64."""

from typing import Any

import numpy as np
import peers
import torch
from measurements import Case

import credit


def draw(case: Case, device: str) -> tuple[torch.Tensor, ...]:
    """Peaked logits, and the same with noise of 0.1, made in pieces; and token ids."""
    generator = torch.Generator(device).manual_seed(0)
    x = torch.empty(case.tokens, case.vocabulary, dtype=case.kind, device=device)
    y = torch.empty_like(x)
    for start in range(0, case.tokens, 512):
        part = x[start : start + 512]
        logits = 3.0 * torch.randn(part.shape, generator=generator, device=device)
        logits[:, :16] += 12.0 * torch.rand(len(part), 16, generator=generator, device=device)
        part.copy_(logits)
        noise = torch.randn(part.shape, generator=generator, device=device)
        y[start : start + 512] = logits + 0.1 * noise
    return x, y, torch.randint(case.vocabulary, (case.tokens,), generator=generator, device=device)


def errors(fields: Any, x: torch.Tensor, y: torch.Tensor, ids: torch.Tensor) -> dict[str, float]:
    """Largest errors on 32 tokens against float64: log p, H in nats, and d relative."""
    rows = slice(min(32, len(x)))
    log_p, _, h, d = (
        torch.as_tensor(np.asarray(f.cpu() if hasattr(f, "cpu") else f)).double()[rows] for f in fields
    )
    truth = [field.cpu() for field in peers.float64(x[rows], y[rows], ids[rows].to(x.device))]
    return {
        "log_p": float((log_p - truth[0]).abs().max()),
        "H": float((h - truth[2]).abs().max()),
        "d_rel": float(((d - truth[3]).abs() / truth[3]).max()),
    }


def nats(statistics: credit.TokenStatistics, size: int) -> tuple[Any, ...]:
    """The four statistics with the entropy in nats."""
    return (*statistics[:2], statistics.normalized_entropy * float(np.log(size)), statistics.deviation)


ALLOWED = {"log_p": 1e-4, "H": 1e-4, "d_rel": 1e-3}


def check(
    found: credit.TokenStatistics, x: torch.Tensor, y: torch.Tensor, ids: torch.Tensor, size: int
) -> dict[str, float]:
    """The errors of ours; an AssertionError where one is larger than any rounding explains."""
    known = errors(nats(found, size), x, y, ids)
    assert all(known[name] <= most for name, most in ALLOWED.items()), f"{known}, allowed {ALLOWED}"
    return known
