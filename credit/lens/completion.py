"""What a file of records holds: one completion per line."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from credit.settings import append_fields
from credit.types import TokenStatistics

FORMAT = 1
STATISTICS = TokenStatistics._fields
PER_TOKEN = ("mask", *STATISTICS, "turns", "scores", "weights", "advantages")


class Completion(BaseModel):
    """One line of a file of records: a completion, its reward, and the numbers of its tokens.

    Lists have one entry per token. A statistic that was not computed is None as a whole; a number that is
    not finite is None in its place. Numbers have 9 significant digits, which hold every float32 exactly.
    Further fields, such as those of `record(..., extra=...)` or of another writer of the format, are kept:
    `completion.answer`, or all of them in `completion.model_extra`.

    Example:
        >>> from credit import lens
        >>> completion = lens.Completion(
        ...     format=1, step=None, row=0, group=0, prompt=None, reward=1.0, valid=True, advantage=1.0,
        ...     progress=None, estimator={"name": "grpo"}, tokens=["Yes", "."], mask=[1, 1], log_probs=None,
        ...     reference_log_probs=None, deviation=None, normalized_entropy=None, turns=None, scores=None,
        ...     weights=[1.0, 1.0], advantages=[1.0, 1.0],
        ... )
        >>> "".join(completion.tokens)
        'Yes.'
    """

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    format: Literal[1]
    """Version of the format."""
    step: int | None
    """Training step."""
    row: int
    """Row of the rollouts."""
    group: int
    """Id of the group: completions of one prompt in one batch share it."""
    prompt: str | None
    """Text of the prompt."""
    reward: float | list[float | None] | None
    """The reward, or one for each of several reward functions."""
    valid: bool
    """False for a row that took no part in its group; its weights and advantages are 0."""
    advantage: float | None
    """A_i, the advantage of the whole response: sum_t A_{i,t} / sum_t w_{i,t}, over tokens that have both."""
    progress: float | None
    """Fraction of training that was done, in [0, 1]."""
    estimator: dict[str, Any]
    """The estimator's settings, from which `credit.parse` makes it again."""
    tokens: list[str]
    """Text of each token; joined they are the completion."""
    mask: list[Literal[0, 1]]
    """1 for the tokens that the policy chose."""
    log_probs: list[float | None] | None
    """log p(token) of the policy, nats."""
    reference_log_probs: list[float | None] | None
    """log q(token) of the reference model, nats."""
    deviation: list[float | None] | None
    """Squared Hellinger distance between policy and reference, in [0, 1]."""
    normalized_entropy: list[float | None] | None
    """Entropy of the policy over log V, in [0, 1]."""
    turns: list[int] | None
    """Turn of each token."""
    scores: list[float | None] | None
    """Scores whose softmax gives the weights; None for `dgpo`, whose score is d h^kappa."""
    weights: list[float | None]
    """w_{i,t}: how the advantage was distributed over the tokens."""
    advantages: list[float | None]
    """A_{i,t}, the advantage of each token."""

    @model_validator(mode="after")
    def _aligned(self) -> "Completion":
        for name in PER_TOKEN:
            values = getattr(self, name)
            if values is not None and len(values) != len(self.tokens):
                raise ValueError(f"{name} has {len(values)} entries for {len(self.tokens)} tokens")
        return self


append_fields("Fields", Completion)
