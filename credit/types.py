"""The arrays that go into an estimator and come out of it."""

import re
from inspect import getdoc
from typing import Any, Literal, NamedTuple, TypeVar

Array = Any
Kind = TypeVar("Kind", bound=type)

_ENTRY = re.compile(r"^    (\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)


def document_fields(kind: Kind) -> Kind:
    """Copies each entry of a named tuple's Attributes section to the `__doc__` of its field.

    `help(Rollouts.mask)` shows it there. Under python -OO, which removes docstrings, nothing is copied.
    """
    section = (getdoc(kind) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    for name, text in _ENTRY.findall(section):
        getattr(kind, name).__doc__ = " ".join(text.split())
    return kind


@document_fields
class Rollouts(NamedTuple):
    """N sampled responses of at most T tokens; rows with the same group id answer the same prompt.

    All arrays are of one library, numpy, torch or JAX, and on one device. Values at tokens outside the
    mask are never read, so they may be anything, NaN included. The fields from log_probs on are optional:
    an estimator lists those that it reads in `needs`.

    Attributes:
        rewards: [N] or [N, K], integer or float, in any unit: one reward, or K of them, per response.
            A response whose reward is not finite takes no part in its group; NaN among K rewards says that
            one was not given, and only a response without any takes no part.
        groups: [N], integers in 0..N-1. Equal ids mark responses to the same prompt; groups may differ
            in size, and their rows may stand in any order.
        mask: [N, T], bool, or 0 and 1: the tokens that the policy chose. Prompts, padding and outputs
            of tools are outside the mask.
        log_probs: [N, T], float, nats, at most 0: log p(token) of the policy.
        reference_log_probs: [N, T], float, nats, at most 0: log q(token) of the reference model.
        normalized_entropy: [N, T], float in [0, 1]: H(p) / log V, the policy's entropy as a share of
            the largest entropy that a vocabulary of V tokens allows.
        deviation: [N, T], float in [0, 1]: squared Hellinger distance 1 - sum_v sqrt(p_v q_v) between
            the next-token distributions of the policy and the reference model.
        rollout_log_probs: [N, T], float, nats, at most 0: log p(token) as reported by the engine that
            sampled the responses.
        token_rewards: [N, T], finite float, in the unit of the rewards: rewards of single tokens, such
            as the last token of a turn.
        turns: [N, T], integers in 0..T-1: the turn of each token, which does not fall along a response;
            `credit.tokens.turns` finds it.
        baseline_rewards: [N], float, in the unit of the rewards: the reward of a greedy response to the
            same prompt.
        valid: [N], bool: whether the response takes part in its group. By default it does if its
            reward is finite, of several all that are given, and at least one.
        progress: 0-d, float in [0, 1]: the fraction of training that is done, which scheduled settings
            read.
        extra: further arrays by name, each [N], [N, T] or [N, K], of floats, integers or bool, such as
            values, a teacher's log-probs or scores of your own. An estimator lists those that it reads in
            `needs`, as "extra.name". An array as wide as the mask holds one value per token.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rollouts = credit.Rollouts(
        ...     rewards=np.array([1.0, 0.0]),
        ...     groups=np.array([0, 0]),
        ...     mask=np.array([[True, True, True], [True, True, False]]),
        ... )
        >>> credit.GRPO(correction=0, eps=0.0)(rollouts).advantages.tolist()
        [[1.0, 1.0, 1.0], [-1.0, -1.0, 0.0]]
    """

    rewards: Array
    groups: Array
    mask: Array
    log_probs: Array = None
    reference_log_probs: Array = None
    normalized_entropy: Array = None
    deviation: Array = None
    rollout_log_probs: Array = None
    token_rewards: Array = None
    turns: Array = None
    baseline_rewards: Array = None
    valid: Array = None
    progress: Array = None
    # A mapping, but Any to type checkers, for clients that spread a dict of arrays over the fields.
    extra: Any = None


class FieldRule(NamedTuple):
    """What one array of `Rollouts` holds; everything that treats the fields alike reads it here."""

    name: str
    shape: Literal["[N] or [N, K]", "[N]", "[N, T]", "[N, K]", "[]", "[N], [N, T] or [N, K]"]
    kind: Literal["float", "integer", "bool"]
    values: str = ""
    """The values that `validate` expects, for its error; empty where it accepts any."""
    least: float | None = None
    most: float | Literal["N - 1", "T - 1"] | None = None
    finite: bool = False
    source: Literal["policy", "reference", "engine"] | None = None
    """What computes it, where it is a statistic of tokens."""

    def largest(self, shape: tuple[int, ...]) -> float | None:
        """`most` as a number, for a field of that shape."""
        if not isinstance(self.most, str):
            return self.most
        return shape[0 if self.most == "N - 1" else 1] - 1


LOG_PROB = "a log-probability, at most 0"
FRACTION = "a number in [0, 1]"

_RULES = (
    FieldRule("rewards", "[N] or [N, K]", "float", "a finite number where `valid` is true", finite=True),
    FieldRule("groups", "[N]", "integer", "an integer in 0..{last} (N rows)", 0, "N - 1"),
    FieldRule("mask", "[N, T]", "bool", "0 or 1"),
    FieldRule("log_probs", "[N, T]", "float", LOG_PROB, most=0, source="policy"),
    FieldRule("reference_log_probs", "[N, T]", "float", LOG_PROB, most=0, source="reference"),
    FieldRule("normalized_entropy", "[N, T]", "float", FRACTION, 0, 1, source="policy"),
    FieldRule("deviation", "[N, T]", "float", FRACTION, 0, 1, source="reference"),
    FieldRule("rollout_log_probs", "[N, T]", "float", LOG_PROB, most=0, source="engine"),
    FieldRule("token_rewards", "[N, T]", "float", "a finite number", finite=True),
    FieldRule("turns", "[N, T]", "integer", "an integer in 0..{last} (T tokens)", 0, "T - 1"),
    FieldRule("baseline_rewards", "[N]", "float"),
    FieldRule("valid", "[N]", "bool"),
    FieldRule("progress", "[]", "float", FRACTION, 0, 1),
)
FIELDS = {rule.name: rule for rule in _RULES}
"""A rule for each field of `Rollouts` but `extra`, by name. A new field is one more there and one more here.
`credit.fields` has the rules of what is in `extra`."""


@document_fields
class TokenStatistics(NamedTuple):
    """Statistics of each token under the policy and the reference model, from their whole vocabulary.

    Every field has the shape of the token ids and is float32, or float64 where all inputs are float64.
    Without a reference, reference_log_probs and deviation are None.

    Attributes:
        log_probs: [...], float, nats, at most 0: log p(token) of the policy.
        reference_log_probs: [...], float, nats, at most 0: log q(token) of the reference model.
        normalized_entropy: [...], float in [0, 1]: H(p) / log V, the policy's entropy as a share of the
            largest entropy that a vocabulary of V tokens allows.
        deviation: [...], float in [0, 1]: squared Hellinger distance 1 - sum_v sqrt(p_v q_v) between
            the next-token distributions of the policy and the reference model.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> policy, reference = np.log([[0.25, 0.25, 0.25, 0.25]]), np.log([[0.7, 0.1, 0.1, 0.1]])
        >>> statistics = credit.token_statistics(policy, reference, np.array([0]))
        >>> [round(float(field[0]), 3) for field in statistics]
        [-1.386, -0.357, 1.0, 0.107]
    """

    log_probs: Array
    reference_log_probs: Array
    normalized_entropy: Array
    deviation: Array


@document_fields
class Credit(NamedTuple):
    """What an estimator returns. No gradient flows through any of it.

    Attributes:
        advantages: [N, T], float32, or float64 for float64 rewards: the advantage A_{i,t} of each token;
            0 outside the mask.
        weights: [N, T], of the same dtype: the factor w_{i,t} by which a response's advantage was
            distributed over its tokens; 0 outside the mask. The weights of a response average 1 where
            the estimator redistributes.
        metrics: diagnostics of the batch by name, each a 0-d array.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rollouts = credit.Rollouts(np.array([1.0, 0.0]), np.array([0, 0]), np.array([[1, 1], [1, 0]]))
        >>> result = credit.RLOO()(rollouts)
        >>> result.advantages.tolist(), result.weights.astype(int).tolist()
        ([[1.0, 1.0], [-1.0, 0.0]], [[1, 1], [1, 0]])
        >>> float(result.metrics["zero_variance_groups"])
        0.0
    """

    advantages: Array
    weights: Array
    metrics: dict[str, Array]
