"""Token statistics from the logits that OpenRLHF's Actor computes for a micro-batch."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from openrlhf.models import Actor
from openrlhf.models.ring_attn_utils import gather_and_pad_tensor, unpad_and_slice_tensor

import credit

Tensor = torch.Tensor


def score_tokens(
    policy: Actor,
    reference: Callable[[], AbstractContextManager[Actor | None]],
    sequences: Tensor,
    action_mask: Tensor,
    attention_mask: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The policy's log-probs [B, A], as from OpenRLHF's Actor, and the TokenStatistics [B, A] by name.

    Actor divides the logits by the rollout's temperature, so the statistics are those of the
    distribution that was sampled from. If there is no reference, the policy is compared with itself.
    """
    batch = sequences, action_mask, attention_mask
    log_probs, output = policy(*batch, return_output=True)
    logits = output["logits"]
    with reference() as model:
        other = logits if model is None else model(*batch, return_output=True)[1]["logits"]
    if policy.packing_samples:
        _, _, next_ids, padding, indices = unpad_and_slice_tensor(sequences, attention_mask, None)
        found = credit.token_statistics(logits, other, next_ids)
        place = None, padding, indices, *sequences.shape
        whole = [gather_and_pad_tensor(field, *place) for field in found]
    else:
        # The last column is compared with the first token; it is dropped below.
        whole = list(credit.token_statistics(logits, other, sequences.roll(-1, dims=1)))
    width = action_mask.shape[1]
    chosen = [field[:, :-1][:, -width:] for field in whole]
    return log_probs, dict(zip(credit.TokenStatistics._fields, chosen, strict=True))


@contextmanager
def adapter_disabled(policy: Actor) -> Iterator[Actor]:
    """Yields the policy with its LoRA adapter disabled within the context."""
    with policy.model.module.disable_adapter():
        yield policy
