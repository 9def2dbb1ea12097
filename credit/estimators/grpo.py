"""Group Relative Policy Optimization."""

from typing import ClassVar, Literal

from credit.estimators.group_relative import GroupRelative


class GRPO(GroupRelative):
    """Group Relative Policy Optimization: the reward standardized within the group of its prompt.

        A_{i,t} = A_i = (r_i - mean_group(r)) / (std_group(r) + eps)

    A group of one response, and a group whose rewards are all equal, get exactly 0. With leave_one_out,
    mean and std are those of the other responses, as NeMo-RL has it. Source: arXiv 2402.03300.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rollouts = credit.Rollouts(np.array([1.0, 0.0]), np.array([0, 0]), np.array([[1, 1], [1, 0]]))
        >>> credit.GRPO(correction=0, eps=0.0)(rollouts).advantages.tolist()
        [[1.0, 1.0], [-1.0, 0.0]]
    """

    blockwise: ClassVar[bool] = True
    name: Literal["grpo"] = "grpo"
