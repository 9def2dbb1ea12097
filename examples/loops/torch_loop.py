"""Trains a tiny language model with an estimator of credit in a plain torch loop: copy it into your trainer.

python examples/loops/torch_loop.py --estimator dgpo --settings '{"tau": 0.05}' --compare grpo
"""

import argparse
import copy
from collections.abc import Iterator

import counting
import numpy as np
import torch

import credit


class TinyModel(torch.nn.Module):
    """Token ids [N, T] in, hidden states [N, T, D] out; the head makes logits of them."""

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(counting.VOCABULARY, size)
        self.body = torch.nn.GRU(size, size, batch_first=True)
        self.head = torch.nn.Linear(size, counting.VOCABULARY, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.body(self.embedding(ids))[0]


@torch.no_grad()
def sample(model: TinyModel, prompts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts [N, P] with LENGTH more tokens [N, P + LENGTH], and the mask [N, LENGTH] of these."""
    ids = prompts
    for _ in range(counting.LENGTH):
        logits = model.head(model(ids)[:, -1])
        ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1)], dim=1)
    ends = (ids[:, prompts.shape[1] :] == counting.END).long()
    # A token counts if no end stands before it. The end itself counts: the policy chose to stop there.
    return ids, ends.cumsum(1) - ends == 0


def train(flags: argparse.Namespace) -> Iterator[counting.Step]:
    """Trains a model, and yields what the estimator got and gave in each step."""
    torch.manual_seed(flags.seed)
    random = np.random.default_rng(flags.seed)
    policy = TinyModel()
    # The reference never trains, and eval mode keeps dropout, if there is any, out of its distributions.
    reference = copy.deepcopy(policy).eval().requires_grad_(False)
    optimizer = torch.optim.Adam(policy.parameters(), lr=flags.learning_rate)
    for _ in range(flags.steps):
        prompts = counting.draw_prompts(random, flags.prompts).repeat(flags.responses, axis=0)
        groups = torch.arange(flags.prompts).repeat_interleave(flags.responses)
        ids, mask = sample(policy, torch.from_numpy(prompts))
        responses = ids[:, -counting.LENGTH :]
        rewards = torch.from_numpy(counting.compute_rewards(prompts, responses.numpy()))

        # The state before a token predicts it. This comes before the update: it measures what has sampled.
        before = slice(-counting.LENGTH - 1, -1)
        with torch.no_grad():
            hidden, reference_hidden = policy(ids)[:, before], reference(ids)[:, before]
        statistics = credit.token_statistics_from_hidden(
            hidden, policy.head.weight, reference_hidden, reference.head.weight, responses, mask=mask
        )
        rollouts = credit.Rollouts(rewards, groups, mask, **statistics._asdict())
        result = flags.estimator(rollouts)

        for _ in range(flags.updates):
            hidden = policy(ids)[:, before]
            log_probs = credit.selected_log_probs_from_hidden(hidden, policy.head.weight, responses)
            # The loss of the estimator's paper, a credit.PolicyLoss. The old log-probs carry no gradient and
            # stay those of the policy that has sampled: the ratio is 1 in the first update, and in the next
            # ones it tells how far the policy has moved since.
            loss, loss_metrics = flags.estimator.loss(
                log_probs,
                statistics.log_probs,
                result.advantages,
                mask,
                reference_log_probs=statistics.reference_log_probs,
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield counting.Step(rollouts, result, loss_metrics)


if __name__ == "__main__":
    flags = counting.parse_flags(__doc__)
    for number, step in enumerate(train(flags), start=1):
        counting.show(number, step, flags.compare and flags.compare(step.rollouts))
