"""What the library is measured against: the four statistics as they are usually written, and in float64."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

Tensor = torch.Tensor


def naive(x: Tensor, y: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
    """Each number from its own formula, as papers write them."""
    p, q = F.softmax(x.float(), -1), F.softmax(y.float(), -1)
    deviation = (1.0 - (p * q).sqrt().sum(-1)).clamp(0.0, 1.0)
    entropy = -(F.softmax(x.float(), -1) * F.log_softmax(x.float(), -1)).sum(-1)
    a = ids[:, None]
    log_p = F.log_softmax(x.float(), -1).gather(-1, a)[:, 0]
    return log_p, F.log_softmax(y.float(), -1).gather(-1, a)[:, 0], entropy, deviation


def careful(x: Tensor, y: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
    """Two log_softmax, everything else from them."""
    log_p, log_q, a = F.log_softmax(x.float(), -1), F.log_softmax(y.float(), -1), ids[:, None]
    entropy = -(log_p.exp() * log_p).sum(-1)
    deviation = 1.0 - (0.5 * (log_p + log_q)).exp().sum(-1)
    return log_p.gather(-1, a)[:, 0], log_q.gather(-1, a)[:, 0], entropy, deviation


def log_probs_and_entropy(x: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Of one model, with autograd's gradient."""
    log_p = F.log_softmax(x.float(), -1)
    return log_p.gather(-1, ids[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)


def shifted(x: Tensor, y: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
    """Sums over exponents from each row's peak, which a compiler can make in two reads."""
    x, y = x.float(), y.float()
    peak, other = x.amax(-1, keepdim=True), y.amax(-1, keepdim=True)
    t = 0.5 * (x - peak)
    u, w = t.exp(), (0.5 * (y - other)).exp()
    a, b = (u * u).sum(-1), (w * w).sum(-1)
    moment, apart = (u * u * t.clamp_min(-512.0)).sum(-1), (u - w).square().sum(-1)
    root_a, root_b = a.sqrt(), b.sqrt()
    deviation = (apart - (root_a - root_b).square()) / (2.0 * root_a * root_b)
    at = ids[:, None]
    log_p = (x.gather(-1, at) - peak)[:, 0] - a.log()
    return log_p, (y.gather(-1, at) - other)[:, 0] - b.log(), a.log() - 2.0 * moment / a, deviation


def naive_numpy(x: Any, y: Any, ids: Any) -> tuple[Any, ...]:
    """As `naive`."""
    rows = np.arange(len(ids))
    p, q = _softmax(np, x), _softmax(np, y)
    deviation = np.clip(1.0 - np.sqrt(p * q).sum(-1), 0.0, 1.0)
    entropy = -(_softmax(np, x) * _log_softmax(np, x)).sum(-1)
    return _log_softmax(np, x)[rows, ids], _log_softmax(np, y)[rows, ids], entropy, deviation


def naive_jax(x: Any, y: Any, ids: Any) -> tuple[Any, ...]:
    """As `naive`, for jit."""
    import jax.numpy as jnp
    from jax.nn import log_softmax, softmax

    p, q = softmax(x), softmax(y)
    deviation = jnp.clip(1.0 - jnp.sqrt(p * q).sum(-1), 0.0, 1.0)
    entropy = -(softmax(x) * log_softmax(x)).sum(-1)
    taken = [jnp.take_along_axis(log_softmax(z), ids[:, None], -1)[:, 0] for z in (x, y)]
    return *taken, entropy, deviation


def float64(x: Tensor, y: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
    """The truth: differences of roots in float64."""
    log_p, log_q, a = x.double().log_softmax(-1), y.double().log_softmax(-1), ids[:, None]
    deviation = 0.5 * ((0.5 * log_p).exp() - (0.5 * log_q).exp()).square().sum(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    return log_p.gather(-1, a)[:, 0], log_q.gather(-1, a)[:, 0], entropy, deviation


def _softmax(xp: Any, x: Any) -> Any:
    e = xp.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _log_softmax(xp: Any, x: Any) -> Any:
    shifted = x - x.max(-1, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(-1, keepdims=True))
