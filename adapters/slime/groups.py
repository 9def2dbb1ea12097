"""What slime's fields say of the samples of all ranks: their rewards, and which belong to one prompt.

The process that samples imports it too, so it needs neither torch nor Megatron.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from math import isnan
from typing import Any


def read_reward(reward: Any) -> float:
    """The reward as a number; NaN where a sample has none."""
    if reward is None:
        return float("nan")
    if isinstance(reward, Mapping | list | tuple):
        raise ValueError(
            f"the reward of a sample is {reward!r:.80}, and estimators get one number per sample from slime; "
            "name one by --reward-key, or combine them in --custom-reward-post-process-path"
        )
    return float(reward)


def refuse_several_rewards(sessions: Sequence[int], rewards: Sequence[float]) -> None:
    """Raises ValueError for a rollout whose samples have different rewards: it counts once in its group."""
    first = dict[int, float]()
    for session, reward in zip(sessions, rewards, strict=True):
        known = first.setdefault(session, reward)
        if known != reward and not (isnan(known) and isnan(reward)):
            raise ValueError(
                f"the samples of rollout_id {session} have the rewards {known:g} and {reward:g}, and a "
                "rollout counts once in its group; give all of its samples the rollout's reward"
            )


def find_groups(
    indices: Sequence[int | None], sessions: Sequence[int], prompts: Sequence[Hashable], size: int
) -> list[int]:
    """The number of each sample's prompt, which slime does not send: its index counts on within prompts.

    Args:
        indices: Sample.index of each sample; those of one rollout have one.
        sessions: the rollout of each sample.
        prompts: what tells the prompts of two samples apart.
        size: rollouts per prompt.

    Raises:
        ValueError: the indices do not tell it.
    """
    known = [index for index in indices if index is not None]
    if len(known) < len(indices):
        raise _unknown("some samples have no index")
    of_sessions = dict(zip(sessions, known, strict=True))
    if any(of_sessions[session] != index for session, index in zip(sessions, known, strict=True)):
        raise _unknown("the samples of a rollout_id have several")
    counts = Counter(of_sessions.values())
    if size > 1 and set(counts.values()) == {size}:  # an index for each prompt
        return known
    if max(counts.values()) > 1:
        index, count = counts.most_common(1)[0]
        raise _unknown(f"{count} rollouts have the index {index}")
    if _are_whole(counts, size, 0):
        return [index // size for index in known]
    # A run that was resumed with another size has counted to any number; or some prompts lack rollouts.
    for first in [*(first for first in range(1, size) if _are_whole(counts, size, first)), 0]:
        groups = [(index - first) // size for index in known]
        if len(set(zip(groups, prompts, strict=True))) == len(set(groups)):
            return groups
    raise _unknown(f"{size} that follow each other have different prompts")


def _are_whole(indices: Iterable[int], size: int, first: int) -> bool:
    """Whether groups of that size, of which one begins with that index, are all complete."""
    return set(Counter((index - first) // size for index in indices).values()) == {size}


def _unknown(what: str) -> ValueError:
    return ValueError(
        f"credit knows the samples of a prompt by their sample_indices, and {what}; let each Sample keep the "
        "index that the data source gave it, in generate functions of yours too, and pass it on in "
        "--custom-convert-samples-to-train-data-path"
    )
