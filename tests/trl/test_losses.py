"""VESPO's weights against TRL's own function; TRL has its other losses inside its trainer alone."""

import torch
from trl import GRPOTrainer

from credit import PolicyLoss


def test_vespos_weights_are_trls():
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand(12, 5, generator=generator, dtype=torch.float64)
    new = (old + 0.2 * torch.randn(12, 5, generator=generator, dtype=torch.float64)).requires_grad_()
    advantages = torch.randn(12, 1, generator=generator, dtype=torch.float64)
    mask = (torch.arange(5) < torch.randint(1, 6, (12, 1), generator=generator)).double()
    theirs = GRPOTrainer.get_gamma_weights(advantages, new - old, mask, None)
    loss, _ = PolicyLoss.from_paper("vespo")(new, old, advantages.expand(12, 5), mask)
    loss.backward()
    torch.testing.assert_close(new.grad, -theirs * advantages * mask / mask.sum(), rtol=1e-6, atol=1e-9)
