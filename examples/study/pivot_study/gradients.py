"""How right the gradient of a small batch is: its cosine with the true one, and its signal-to-noise ratio."""

from collections.abc import Sequence

import torch
from estimator_study.models import Parameters
from torch import Tensor

from pivot_study.arms import ARMS, Seen, weigh_pivots
from pivot_study.policy import Cell, Responses, compute_log_probs, compute_loss, respond

AT_ONCE = 16  # groups of the large batch that are computed together
SMALL = 8  # groups of a small batch: 128 responses


def differentiate(
    cell: Cell, parameters: Parameters, responses: Responses, weights: Sequence[Tensor]
) -> Tensor:
    """The loss's gradient under each of the weights, flat: [arms, parameters]."""
    leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
    log_probs = compute_log_probs(cell, leaves, responses)
    advantages = responses.advantages
    found = []
    for each in weights:
        loss = compute_loss(log_probs, advantages, each)
        gradients = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True)
        found.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(found)


def estimate_truth(cell: Cell, parameters: Parameters, groups: int, generator: torch.Generator) -> Tensor:
    """Gradients of two independent large batches under oracle and under even weights: [2, 2, parameters].

    Both have one expectation where the pivots alone decide the reward; the oracle's has far less noise.
    """
    batches = groups // AT_ONCE
    halves: list[list[Tensor]] = [[], []]
    for number in range(batches):
        responses = respond(cell, parameters, AT_ONCE, generator)
        oracle = weigh_pivots(responses)
        weights = [oracle, torch.ones_like(oracle)]
        halves[number % 2].append(differentiate(cell, parameters, responses, weights))
    return torch.stack([torch.stack(half).mean(0) for half in halves])


def measure(
    cell: Cell,
    models: tuple[Parameters, Parameters, Parameters],
    groups: int,
    batches: int,
    generator: torch.Generator,
) -> dict[str, dict[str, float]]:
    """Per arm `cosine` and `snr` of small batches; "truth" has the cosine of the two large gradients.

    The cosine is E[g . G] / sqrt(E|g|^2 |G|^2), with |G|^2 from two independent halves so that the noise
    left in G does not count; snr is |E g|^2 / E|g - E g|^2, with |E g|^2 from pairs of batches.
    """
    policy, half_way, reference = models
    (oracle, even), (other_oracle, other_even) = estimate_truth(cell, policy, groups, generator)
    truth, size = (oracle + other_oracle) / 2, float(oracle @ other_oracle)
    cross = float(oracle @ other_even + even @ other_oracle) / 2
    even_size = float(even @ other_even)
    found = {"truth": {"cosine": cross / max(size * even_size, 1e-30) ** 0.5, "size": size}}
    gradients = []
    for _ in range(batches):
        responses = respond(cell, policy, SMALL, generator)
        seen = Seen(cell, responses, policy, half_way, reference, generator)
        weights = [weigh(seen) for weigh in ARMS.values()]
        gradients.append(differentiate(cell, policy, responses, weights))
    for name, own in zip(ARMS, torch.stack(gradients, 1), strict=True):
        found[name] = summarize(own, truth, size)
    return found


def summarize(gradients: Tensor, truth: Tensor, size: float) -> dict[str, float]:
    """Cosine and signal-to-noise ratio of gradients [batches, parameters]."""
    batches = len(gradients)
    square = float(gradients.square().sum(1).mean())
    total = gradients.sum(0)
    signal = (float(total @ total) - batches * square) / (batches * (batches - 1))
    cosine = float((gradients @ truth).mean()) / max(square * max(size, 0.0), 1e-30) ** 0.5
    return {"cosine": cosine, "snr": signal / max(square - signal, 1e-30)}
