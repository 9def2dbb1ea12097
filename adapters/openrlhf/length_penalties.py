"""OpenRLHF's length penalties, of which the overlong one counts the tokens that the policy chose."""

from collections.abc import Sequence
from typing import Any

from openrlhf.trainer.ppo_utils import experience_maker


def apply_length_penalties(experiences: Sequence[Any], args: Any) -> None:
    """OpenRLHF's own penalties, in its order, with its lines of log and the new rewards in `info`.

    OpenRLHF's `response_length` reaches from the first to the last action and so counts the environment's
    tokens between the turns of an agent (OpenRLHF#1243). While the penalties are computed it is at most the
    number of actions; in a single turn the two are equal.
    """
    spans = [experience.response_length for experience in experiences]
    for experience, span in zip(experiences, spans, strict=True):
        if span is not None:
            experience.response_length = span.minimum(experience.action_mask.sum(dim=1).to(span.dtype))
    try:
        experience_maker.apply_length_penalties(experiences, args)
    finally:
        for experience, span in zip(experiences, spans, strict=True):
            experience.response_length = span
