"""Differentiable log-probs and entropies of one model, from logits or from hidden states."""

from typing import Any

from credit import logits_validation, validation
from credit.backends import choose_backend, choose_sharded_backend
from credit.backends.arrays import is_in_range, namespace
from credit.types import Array


def selected_log_probs(
    logits: Array,
    token_ids: Array,
    *,
    temperature: Array | float = 1.0,
    vocab_size: int | None = None,
    process_group: Any = None,
) -> Array:
    """log p(a) [...] in nats of ids a [...] under softmax(logits [..., V] / T), differentiable.

        d log p(a) / dx_v = (1[v = a] - p_v) / T

    Only the logits are kept for the gradient, which has their dtype; the result is float32 (float64
    for float64 logits). vocab_size, process_group and errors are as in `token_statistics`, derivatives as in
    `log_probs_and_entropy`.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> credit.selected_log_probs(np.log([[0.25, 0.75]]), np.array([0])).round(3).tolist()
        [-1.386]
    """
    settings = {"vocab_size": vocab_size, "process_group": process_group}
    return log_probs_and_entropy(logits, token_ids, temperature=temperature, **settings)[0]


def log_probs_and_entropy(
    logits: Array,
    token_ids: Array,
    *,
    temperature: Array | float = 1.0,
    vocab_size: int | None = None,
    process_group: Any = None,
) -> tuple[Array, Array]:
    """log p(a) and H(p), both [...] in nats, differentiable in logits [..., V].

        d log p(a) / dx_v = (1[v = a] - p_v) / T        dH / dx_v = -p_v (ln p_v + H) / T

    Dtypes are as in `selected_log_probs`, vocab_size, process_group and errors as in
    `token_statistics` (each rank's logits get their own gradient). On torch there is the first derivative
    alone, in reverse mode: a second one and forward mode raise a NotImplementedError, and
    CREDIT_BACKEND=array_api has them.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> log_probs, entropy = credit.log_probs_and_entropy(np.zeros((1, 8)), np.array([3]))
        >>> log_probs.round(3).tolist(), entropy.round(3).tolist()
        ([-2.079], [2.079])
    """
    validation.check_same_library(logits=logits)
    source = logits_validation.prepare_logits("logits", logits, vocab_size, process_group is not None)
    shard, size = logits_validation.locate_shard(source, vocab_size, process_group)
    ids, _ = logits_validation.prepare_token_ids(source.logits, token_ids, temperature, None, size)
    if shard is None:
        results = choose_backend(logits).log_probs_and_entropy(source.logits, ids, temperature)
    else:
        backend = choose_sharded_backend(logits)
        results = backend.sharded_log_probs_and_entropy(source.logits, ids, temperature, shard, size)
    log_probs, entropy = results
    return _replace_unknown(log_probs, ids, size), entropy


def selected_log_probs_from_hidden(
    hidden: Array,
    head: Array,
    token_ids: Array,
    *,
    temperature: Array | float = 1.0,
    bias: Array | None = None,
    scale: float = 1.0,
    soft_cap: float | None = None,
    chunk: int | None = None,
) -> Array:
    """log p(a) of ids a, differentiable in hidden states, head and bias; the logits are never held whole.

        x = c tanh(z / c),  z = scale (h W^T + bias)        log p(a) = x_a / T - ln sum_v exp(x_v / T)

    The gradient makes each tile of logits once more and sums its products in float32; peak extra memory
    is of the order of tokens x chunk, besides the gradients themselves. Further derivatives are as in
    `log_probs_and_entropy`.

    Args:
        hidden: h [..., D].
        head: W [V, D].
        token_ids: a [...], integers.
        temperature: T > 0, a number or an array [...]; no gradient flows to it.
        bias: [V].
        scale: factor on the logits.
        soft_cap: c > 0, the tanh cap on the logits.
        chunk: vocabulary entries per tile; the default fits the tile to the memory.

    Returns:
        [...] in nats, float32 (float64 where hidden and head are). numpy has no gradients.

    Raises:
        ValueError: as `token_statistics`.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> hidden, head = np.zeros((1, 3)), np.ones((8, 3))
        >>> credit.selected_log_probs_from_hidden(hidden, head, np.array([3])).round(3).tolist()
        [-2.079]
    """
    validation.check_same_library(hidden=hidden, head=head, bias=bias)
    source = logits_validation.prepare_head(
        "", hidden, head, bias, scale=scale, soft_cap=soft_cap, vocab_size=None, sharded=False
    )
    logits_validation.check_chunk(chunk)
    size = source.columns
    ids, _ = logits_validation.prepare_token_ids(hidden, token_ids, temperature, None, size)
    options: dict[str, Any] = {"bias": bias, "scale": scale, "soft_cap": soft_cap, "chunk": chunk}
    result = choose_backend(hidden).selected_log_probs_from_hidden(hidden, head, ids, temperature, **options)
    return _replace_unknown(result, ids, size)


def _replace_unknown(log_probs: Array, ids: Array, size: int) -> Array:
    """NaN for ids outside the vocabulary, which no check has seen on an accelerator or under tracing."""
    return namespace(log_probs).where(is_in_range(ids, size), log_probs, float("nan"))
