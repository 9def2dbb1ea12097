"""The micro-batches of an optimizer step, each with its share of the step's loss.

Tunix takes the mean loss of each micro-batch over its own rows, and the mean of those over the step. Rows
that leave the loss would then leave the denominator of their own micro-batch alone, and the other rows in
it would count for more, or for less, than those of other micro-batches.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np


def count_kept(example: Any, by_token: bool) -> int:
    """The tokens that stay in the loss, or the rows that have one."""
    mask = np.asarray(example.completion_mask)
    return int(mask.sum() if by_token else mask.any(axis=1).sum())


def share_loss(batches: Sequence[Sequence[Any]], by_token: bool) -> list[list[Any]]:
    """The micro-batches of a step with the `share` that makes the mean of their losses that of the step.

    Each is a list of examples, which Tunix puts together before it trains on them.
    """
    counts = [sum(count_kept(example, by_token) for example in batch) for batch in batches]
    mean = sum(counts) / len(counts) or 1.0
    return [
        [each.replace(share=jnp.full(len(each.completion_mask), count / mean, jnp.float32)) for each in batch]
        for batch, count in zip(batches, counts, strict=True)
    ]


class StepQueue:
    """Tunix's queue of micro-batches, which get through when all of their step are there."""

    def __init__(self, queue: Any, size: int, by_token: bool) -> None:
        self.queue = queue
        self.size = size
        self.by_token = by_token
        self.held: list[list[Any]] = []

    def put(self, item: list[Any] | None) -> None:
        """Takes a list of one micro-batch, or None, behind the last."""
        self.held += [item] if item else []
        if len(self.held) == self.size or (item is None and self.held):
            for batch in share_loss(self.held, self.by_token):
                self.queue.put(batch)
            self.held.clear()
        if item is None:
            self.queue.put(None)


def hold_steps(learner: Any, queue: Any) -> Any:
    """The queue, or one before it that shares the loss of a step among its micro-batches.

    They weigh by their rows, which without rows that left is what Tunix does, or with DAPO's filter and
    token-mean by their tokens. Packed rows are micro-batches of their own, whose number nobody knows.
    """
    training = learner.rl_cluster.cluster_config.training_config
    size = count_micro_batches(training)
    if size == 1 or training.max_seq_token_per_tpu is not None:
        return queue
    return StepQueue(queue, size, counts_tokens(learner.algo_config))


def share_steps(learner: Any, batches: Iterable[list[Any]]) -> Iterator[list[Any]]:
    """The micro-batches of the agentic learner, each with its share of the loss of its step."""
    size = count_micro_batches(learner.rl_cluster.cluster_config.training_config)
    if size == 1:
        yield from batches
        return
    held = list[list[Any]]()
    for batch in batches:
        held.append(batch)
        if len(held) == size:
            yield from share_loss(held, counts_tokens(learner.algo_config))
            held.clear()
    if held:
        yield from share_loss(held, counts_tokens(learner.algo_config))


def counts_tokens(config: Any) -> bool:
    """Whether micro-batches weigh by their tokens: in DAPO's mean over all tokens of the step."""
    return bool(config.filter_groups and config.loss_agg_mode == "token-mean")


def count_micro_batches(training: Any) -> int:
    """The micro-batches of one optimizer step, of Tunix's training config."""
    return getattr(training, "gradient_accumulation_steps", None) or 1
