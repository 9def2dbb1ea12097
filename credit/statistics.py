"""From two models' logits, or hidden states and heads, to numbers per token."""

from typing import Any

from credit import logits_validation, validation
from credit.backends import choose_backend, choose_sharded_backend
from credit.backends.arrays import stop_gradient
from credit.backends.vocab.sources import LinearHead, Source
from credit.types import Array, TokenStatistics


def token_statistics(
    policy_logits: Array,
    reference_logits: Array,
    token_ids: Array,
    *,
    temperature: Array | float = 1.0,
    mask: Array | None = None,
    vocab_size: int | None = None,
    process_group: Any = None,
) -> TokenStatistics:
    """Log-probs, entropy and squared Hellinger distance of two models, in one pass over the vocabulary.

        p = softmax(x / T)    q = softmax(y / T)
        log p(a)    log q(a)    H(p) / log V    d = 1 - sum_v sqrt(p_v q_v)

    d is a sum of squared differences, so it is accurate where policy and reference nearly agree; it
    is exactly 0 for identical logits. Log-probs are in nats; entropy and deviation lie in [0, 1].
    No gradient flows through the result: `selected_log_probs` is the differentiable one.

    Args:
        policy_logits: x [..., V], any floating type (float32 inside; float64 if all is float64).
        reference_logits: y [..., V].
        token_ids: a [...], integers.
        temperature: T > 0, a number or an array [...].
        mask: [...], bool or 0/1. Where it is 0, ids are not read and the results are 0.
        vocab_size: V without padding columns; logits beyond it are ignored.
        process_group: the ranks over which the vocabulary is sharded, in their order (a group of
            torch.distributed; inside JAX's shard_map the axis name). Logits are then this rank's
            columns, ids and vocab_size those of the whole; every rank gets the whole's statistics.

    Returns:
        TokenStatistics, each [...]. A NaN or +inf logit, or a row of -inf only, gives NaN for its
        own token and model.

    Raises:
        ValueError: shapes, devices, dtypes or libraries do not fit, T < 1e-30, an id outside the
            vocabulary, or a process group with a library other than torch and JAX. Ids on an
            accelerator or under tracing are not checked: there the log-probs become NaN.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> logits = np.log([[0.5, 0.5], [0.9, 0.1]])
        >>> statistics = credit.token_statistics(logits, logits, np.array([0, 1]))
        >>> np.exp(statistics.log_probs).round(6).tolist()
        [0.5, 0.1]
        >>> statistics.normalized_entropy.round(3).tolist(), statistics.deviation.tolist()
        ([1.0, 0.469], [0.0, 0.0])

    Source: DGPO, arXiv 2605.03327.
    """
    validation.check_same_library(policy_logits=policy_logits, reference_logits=reference_logits)
    sharded = process_group is not None
    policy = logits_validation.prepare_logits("policy_logits", policy_logits, vocab_size, sharded)
    reference = logits_validation.prepare_logits("reference_logits", reference_logits, vocab_size, sharded)
    validation.check_shape("reference_logits", reference.logits, policy.logits.shape, "as policy_logits")
    return _compute_statistics(
        policy, reference, token_ids, temperature, mask, vocab_size, None, process_group
    )


def token_statistics_from_hidden(
    policy_hidden: Array,
    policy_head: Array,
    reference_hidden: Array,
    reference_head: Array,
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
) -> TokenStatistics:
    """As `token_statistics`, from hidden states: the logits are made in tiles and never held whole.

        x = c tanh(z / c),  z = scale (h W^T + bias)        (without soft cap: x = z)

    Args:
        policy_hidden: h [..., D].
        policy_head: W [V, D].
        reference_hidden: [..., D'].
        reference_head: [V, D'].
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
    reference = logits_validation.prepare_head(
        "reference_", reference_hidden, reference_head, reference_bias, **options
    )
    logits_validation.check_chunk(chunk)
    logits_validation.check_same_vocabulary(policy, reference)
    lead = tuple(reference_hidden.shape[:-1])
    validation.check_shape("token_ids", token_ids, lead, "as reference_hidden without its last axis")
    return _compute_statistics(
        policy, reference, token_ids, temperature, mask, vocab_size, chunk, process_group
    )


def _compute_statistics(
    policy: Source,
    reference: Source,
    token_ids: Array,
    temperature: Array | float,
    mask: Array | None,
    vocab_size: int | None,
    chunk: int | None,
    process_group: Any,
) -> TokenStatistics:
    """The statistics of checked sources, whose ids, mask and temperature are checked here."""
    like = policy.arrays[0]
    shard, size = logits_validation.locate_shard(policy, vocab_size, process_group)
    ids, chosen = logits_validation.prepare_token_ids(like, token_ids, temperature, mask, size)
    backend = choose_backend(like)
    if shard is not None:
        statistics = choose_sharded_backend(like).sharded_token_statistics(
            policy, reference, ids, temperature, shard, size, chunk
        )
    elif isinstance(policy, LinearHead) and isinstance(reference, LinearHead):
        statistics = backend.token_statistics_from_hidden(
            policy.hidden,
            policy.head,
            reference.hidden,
            reference.head,
            ids,
            temperature,
            policy_bias=policy.bias,
            reference_bias=reference.bias,
            scale=policy.scale,
            soft_cap=policy.soft_cap,
            chunk=chunk,
        )
    else:
        statistics = backend.token_statistics(like, reference.arrays[0], ids, temperature)
    fields = backend.postprocess(statistics, ids, chosen, size)
    return TokenStatistics(*(stop_gradient(field) for field in fields))
