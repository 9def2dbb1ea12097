"""Group Relative Policy Optimization."""

from typing import ClassVar, Literal

from credit.estimators.group_relative import GroupRelative


class GRPO(GroupRelative):
    """Group Relative Policy Optimization: the reward standardised within the prompt's group.

        A_{i,t} = A_i = (r_i - mean_group(r)) / (std_group(r) + eps)

    A group of one, or one whose rewards are all equal, gives exactly 0. Loss: PPO clip 0.2, mean
    over a response's tokens, then over responses. Source: arXiv 2402.03300.
    """

    blockwise: ClassVar[bool] = True
    name: Literal["grpo"] = "grpo"
