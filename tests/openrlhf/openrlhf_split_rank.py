"""One rank of two that share the tokens of packed rows, or the weights of layers, and score them."""

from contextlib import nullcontext

import openrlhf_ranks
import torch
import torch.distributed as dist
from openrlhf_scoring import TEMPERATURE, batch

from credit.adapters.fields import STATISTICS
from credit.adapters.openrlhf import statistics

LASTS = 5, 6, 1  # tokens of the last row: 26 tokens in all, 27, of which one rank has to pad, and 22


def load(strategy, path):
    actor = openrlhf_ranks.load(strategy, path, temperature=TEMPERATURE, packing_samples=True)
    if strategy.args.ds.tensor_parallel_size > 1:
        actor = strategy.prepare(actor)  # which splits the layers
        actor.model.module.float()
    actor.model.float().eval()
    return actor


def score(policy, reference, last, group):
    """The log-probs and statistics of one batch; under `same`, those of the policy beside itself."""
    sequences, actions, attention = batch(last)
    found = {}
    with torch.no_grad():
        for name, other in (("other", reference), ("same", policy)):
            context = nullcontext(other)
            found[name] = statistics.score_tokens(
                policy,
                lambda context=context: context,
                sequences,
                actions,
                attention,
                names=STATISTICS,
                ring_attn_group=group,
            )
    return found


def gradient(policy, group):
    """That of the mean log-prob of the action tokens, as DeepSpeed averages it over the ranks."""
    sequences, actions, attention = batch(6)
    log_probs = policy(sequences, actions, attention, ring_attn_group=group)
    (log_probs.sum() / actions.sum()).backward()
    found = {}
    for name, parameter in policy.model.named_parameters():
        dist.all_reduce(parameter.grad)
        found[name] = parameter.grad / dist.get_world_size()
    return found


def main():
    given = openrlhf_ranks.parser().parse_args()
    strategy = openrlhf_ranks.start(given)
    policy, reference = load(strategy, given.model), load(strategy, given.reference)
    shapes = {name: parameter.shape for name, parameter in policy.model.named_parameters()}
    group = strategy.ring_attn_group
    found = {last: score(policy, reference, last, group) for last in LASTS}
    gradients = gradient(policy, group) if given.ring > 1 else None
    torch.save((found, gradients, shapes), f"{given.out}{dist.get_rank()}")


if __name__ == "__main__":
    main()
