"""The model that an estimator learns from, and how much likelier it finds the sampled tokens."""

from typing import Literal

from credit.fields import get_array
from credit.log_ratios import bound_log_probs
from credit.types import Array, Rollouts

Teacher = Literal["extra", "reference"]

FIELD: dict[Teacher, str] = {"extra": "extra.teacher_log_probs", "reference": "reference_log_probs"}
"""The array that holds log q of the teacher."""


def compare_log_probs(rollouts: Rollouts, teacher: Teacher) -> Array:
    """x = log q_teacher - log p [N, T] of the sampled tokens, in nats; a log-prob below -1e12 is -1e12.

    That makes the difference finite where a model gives a token no probability, and 0 where both do.
    """
    return bound_log_probs(get_array(rollouts, FIELD[teacher])) - bound_log_probs(rollouts.log_probs)
