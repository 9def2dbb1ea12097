"""The turns of an agent loop, and what lies on tokens of them that verl rejects afterwards.

verl takes rejected tokens out of the response_mask, so that its runs are turns only before rejection.
"""

from collections.abc import Sequence

import torch

Tensor = torch.Tensor


def place_scores(name: str, rows: Sequence[Sequence[float]], mask: Tensor) -> Tensor:
    """Each row's scores, in the order of its turns, on the last tokens of the mask's runs; [N, T]."""
    whole = torch.zeros(mask.shape, device=mask.device)
    for row, (scores, ends) in enumerate(zip(rows, mark_ends(mask), strict=True)):
        places = ends.nonzero()[:, 0]
        if scores and not len(places) - 1 <= len(scores) <= len(places):
            raise ValueError(
                f"row {row} has {len(scores)} {name} for {len(places)} turns, and nothing says to which "
                "they belong; let the agent loop score every turn (0 where nothing is earned)"
            )
        whole[row, places[: len(scores)]] = torch.as_tensor(scores, dtype=whole.dtype, device=whole.device)
    return whole


def mark_ends(mask: Tensor) -> Tensor:
    """The last tokens of the mask's runs, bool [N, T]."""
    after = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
    return mask & ~after


def spread_ends(values: Tensor, mask: Tensor) -> Tensor:
    """What the values [N, T] are on the last token of each turn, on all of the turn's tokens."""
    places = torch.arange(mask.shape[1], device=mask.device)
    ends = torch.where(mark_ends(mask), places, mask.shape[1] - 1)
    return values.gather(1, ends.flip(1).cummin(dim=1).values.flip(1))


def move_rejected(rewards: Tensor, before: Tensor, kept: Tensor, turns: Tensor | None = None) -> Tensor:
    """The rewards [N, T], with those of rejected tokens on the last token before them that was kept.

    A reward that is earned later counts for all tokens before it, whether verl trains on its own token or
    not. With `turns` [N, T] a reward stays in its turn. Where no token before it was kept it counts for none.

    Args:
        before: the mask [N, T], bool, of the agent loop; rewards outside it count for no token, as in verl.
        kept: the mask [N, T], bool, after verl's rejection.
    """
    places = torch.arange(rewards.shape[1], device=rewards.device)
    last = torch.where(kept, places, -1).cummax(dim=1).values
    to = last.clamp(min=0)
    counts = before & (last >= 0)
    if turns is not None:
        counts &= turns.gather(1, to) == turns
    return torch.zeros_like(rewards).scatter_add(1, to, torch.where(counts, rewards, 0.0))
