"""The arrays that go in and come out."""

from typing import Any, NamedTuple

Array = Any


class Rollouts(NamedTuple):
    """N sampled responses of at most T tokens; rows with the same group id answer the same prompt.

    All arrays are of one library and on one device. What lies under the mask's zeros is never
    read, so it may be anything, NaN included. Fields from log_probs on may be None.
    """

    rewards: Array  # [N] or [N, K]: one reward, or K named ones, per response
    groups: Array  # [N]: integers in 0..N-1, any order, groups may differ in size
    mask: Array  # [N, T]: bool or 0/1; tokens the policy chose (not prompt, padding, tool output)
    log_probs: Array = None  # [N, T]: log p(token) of the policy
    reference_log_probs: Array = None  # [N, T]
    normalized_entropy: Array = None  # [N, T]: H(p) / log V, in [0, 1]
    deviation: Array = None  # [N, T]: squared Hellinger distance to the reference, in [0, 1]
    rollout_log_probs: Array = None  # [N, T]: of the engine that sampled
    token_rewards: Array = None  # [N, T]
    turns: Array = None  # [N, T]: integers
    baseline_rewards: Array = None  # [N]: reward of a greedy response
    valid: Array = None  # [N]: bool; default: the reward is finite
    progress: Array = None  # []: training progress in [0, 1]


TOKEN_FIELDS = (
    "log_probs",
    "reference_log_probs",
    "normalized_entropy",
    "deviation",
    "rollout_log_probs",
    "token_rewards",
    "turns",
)  # of Rollouts, [N, T], beside the mask


class TokenStatistics(NamedTuple):
    """What the vocabulary says about each token; every field has the shape of the token ids."""

    log_probs: Array  # log p(token), nats
    reference_log_probs: Array  # log q(token), nats
    normalized_entropy: Array  # H(p) / log V, in [0, 1]
    deviation: Array  # squared Hellinger distance 1 - sum_v sqrt(p_v q_v), in [0, 1]


class Credit(NamedTuple):
    """What an estimator returns: no gradient flows through any of it."""

    advantages: Array  # [N, T]: zero outside the mask
    weights: Array  # [N, T]: how a response's advantage was spread over its tokens
    metrics: dict[str, Array]  # 0-d arrays
