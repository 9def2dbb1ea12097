"""From two models' hidden states and heads to numbers per token."""

from collections.abc import Sequence
from typing import Any, overload

from credit import logits_validation, validation
from credit.statistics import Name, compute_statistics
from credit.types import Array, TokenStatistics


@overload
def token_statistics_from_hidden(
    policy_hidden: Array,
    policy_head: Array,
    reference_hidden: Array | None,
    reference_head: Array | None,
    token_ids: Array,
    *,
    temperature: Array | float = 1.0,
    mask: Array | None = None,
    vocab_size: int | None = None,
    policy_bias: Array | None = None,
    reference_bias: Array | None = None,
    scale: float = 1.0,
    soft_cap: float | None = None,
    chunk: int | None = None,
    process_group: Any = None,
    also: tuple[()] = (),
) -> TokenStatistics: ...


@overload
def token_statistics_from_hidden(
    policy_hidden: Array,
    policy_head: Array,
    reference_hidden: Array | None,
    reference_head: Array | None,
    token_ids: Array,
    *,
    temperature: Array | float = 1.0,
    mask: Array | None = None,
    vocab_size: int | None = None,
    policy_bias: Array | None = None,
    reference_bias: Array | None = None,
    scale: float = 1.0,
    soft_cap: float | None = None,
    chunk: int | None = None,
    process_group: Any = None,
    also: tuple[Name, *tuple[Name, ...]] | list[Name],
) -> tuple[TokenStatistics, dict[str, Array]]: ...


def token_statistics_from_hidden(
    policy_hidden: Array,
    policy_head: Array,
    reference_hidden: Array | None,
    reference_head: Array | None,
    token_ids: Array,
    *,
    temperature: Array | float = 1.0,
    mask: Array | None = None,
    vocab_size: int | None = None,
    policy_bias: Array | None = None,
    reference_bias: Array | None = None,
    scale: float = 1.0,
    soft_cap: float | None = None,
    chunk: int | None = None,
    process_group: Any = None,
    also: Sequence[Name] = (),
) -> TokenStatistics | tuple[TokenStatistics, dict[str, Array]]:
    """As `token_statistics`, from hidden states: the logits are made in tiles and never held whole.

        x = c tanh(z / c),  z = scale (h W^T + bias)        (without soft cap: x = z)

    Args:
        policy_hidden: h [..., D].
        policy_head: W [V, D].
        reference_hidden: [..., D'], or None without a reference, as in `token_statistics`.
        reference_head: [V, D'], or None together with reference_hidden.
        token_ids: [...], integers.
        temperature: as in `token_statistics`.
        mask: as in `token_statistics`.
        vocab_size: V without padding rows of the heads.
        policy_bias: [V].
        reference_bias: [V].
        scale: factor on the logits of both models (Cohere's logit_scale, 1 / Granite's).
        soft_cap: c > 0, the tanh cap on the logits of both models (Gemma 2).
        chunk: vocabulary entries per tile; the default fits the tile to the memory.
        process_group: as in `token_statistics`, with this rank's rows of the heads and biases.
        also: as in `token_statistics`.

    Returns, raises, source: as `token_statistics`.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> hidden, head, ids = np.array([[1.0, 2.0]]), np.eye(2), np.array([1])
        >>> statistics = credit.token_statistics_from_hidden(hidden, head, hidden, 2 * head, ids)
        >>> [round(float(field[0]), 3) for field in statistics]
        [-0.313, -0.127, 0.84, 0.019]
        >>> statistics = credit.token_statistics(hidden @ head.T, hidden @ (2 * head).T, ids)
        >>> [round(float(field[0]), 3) for field in statistics]
        [-0.313, -0.127, 0.84, 0.019]
    """
    validation.check_same_library(
        policy_hidden=policy_hidden,
        policy_head=policy_head,
        reference_hidden=reference_hidden,
        reference_head=reference_head,
        policy_bias=policy_bias,
        reference_bias=reference_bias,
    )
    options: dict[str, Any] = {"vocab_size": vocab_size, "sharded": process_group is not None}
    options |= {"scale": scale, "soft_cap": soft_cap}
    policy = logits_validation.prepare_head("policy_", policy_hidden, policy_head, policy_bias, **options)
    logits_validation.check_chunk(chunk)
    reference = None
    if logits_validation.has_reference(reference_hidden, reference_head, reference_bias):
        given = reference_hidden, reference_head, reference_bias
        reference = logits_validation.prepare_head("reference_", *given, **options)
        logits_validation.check_same_vocabulary(policy, reference)
        lead = tuple(reference.hidden.shape[:-1])
        validation.check_shape("token_ids", token_ids, lead, "as reference_hidden without its last axis")
    return compute_statistics(
        policy, reference, token_ids, temperature, mask, vocab_size, chunk, process_group, also
    )
