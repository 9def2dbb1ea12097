"""Token statistics from the logits that OpenRLHF's Actor computes for a micro-batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
import torch.distributed as dist
from openrlhf.models import Actor
from openrlhf.models.ring_attn_utils import gather_and_pad_tensor, unpad_and_slice_tensor

import credit
from credit.adapters.fields import compute_by_name

Tensor = torch.Tensor


def score_tokens(
    policy: Actor,
    reference: Callable[[], AbstractContextManager[Actor | None]],
    sequences: Tensor,
    action_mask: Tensor,
    attention_mask: Tensor,
    *,
    names: Sequence[str] = credit.TokenStatistics._fields,
    ring_attn_group: dist.ProcessGroup | None = None,
    **images: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The policy's log-probs [B, A], as from OpenRLHF's Actor, and the statistics [B, A] of those names.

    Actor divides the logits by the rollout's temperature, so the statistics are those of the
    distribution that was sampled from. Names that do not compare need no reference.
    With ring attention each rank of the group has the logits of its part of the tokens, and gets the
    statistics of all. `images` is what a vision model takes beside the tokens; both models get it.
    """
    batch = sequences, action_mask, attention_mask
    options = {"return_output": True, "ring_attn_group": ring_attn_group, **images}
    log_probs, output = policy(*batch, **options)
    logits = output["logits"]
    with reference() as model:
        other = None if model is None else model(*batch, **options)[1]["logits"]
    if policy.packing_samples:
        _, _, next_ids, padding, indices = unpad_and_slice_tensor(sequences, attention_mask, ring_attn_group)
        found = compute_by_name(credit.token_statistics, names, logits, other, next_ids)
        place = ring_attn_group, padding, indices, *sequences.shape
        found = {name: gather_and_pad_tensor(field, *place) for name, field in found.items()}
    else:
        # The last column is compared with the first token; it is dropped below.
        next_ids = sequences.roll(-1, dims=1)
        found = compute_by_name(credit.token_statistics, names, logits, other, next_ids)
    width = action_mask.shape[1]
    return log_probs, {name: field[:, :-1][:, -width:] for name, field in found.items()}


@contextmanager
def adapter_disabled(policy: Actor) -> Iterator[Actor]:
    """Yields the policy with its LoRA adapter disabled within the context."""
    with policy.model.module.disable_adapter():
        yield policy
