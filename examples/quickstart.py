"""The README's example: numbers in, advantages per token out, on numpy alone."""

import numpy as np

import credit

rng = np.random.default_rng(0)
logits = rng.normal(size=(2, 4, 5, 100))  # policy and reference, 4 responses of 5 tokens, 100 words
statistics = credit.token_statistics(logits[0], logits[1], rng.integers(0, 100, (4, 5)))
rewards, groups, mask = np.array([1.0, 0.0, 0.0, 1.0]), np.array([0, 0, 1, 1]), np.ones((4, 5), bool)
rollouts = credit.Rollouts(rewards, groups, mask, **statistics._asdict())
result = credit.DGPO(tau=0.1)(rollouts)
print(result.advantages.round(2))
print({name: round(float(value), 3) for name, value in result.metrics.items()})
