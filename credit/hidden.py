"""Log-probs of a loss from hidden states, so that training holds no logits."""

from typing import Any

from credit import logits_validation, validation
from credit.backends import choose_backend
from credit.backends.arrays import is_in_range, namespace
from credit.types import Array


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
    is of the order of tokens x chunk, besides the gradients themselves.

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
    """
    arrays = {"hidden": hidden, "head": head, "bias": bias}
    validation.check_same_library(**arrays)
    logits_validation.check_head_shapes("", hidden, head, bias)
    logits_validation.check_vocab_size("head", head.shape[0], None)
    logits_validation.check_tiling(soft_cap, chunk)
    ids, _ = logits_validation.prepare_token_ids(hidden, token_ids, temperature, None, head.shape[0])
    settings: dict[str, Any] = {"bias": bias, "scale": scale, "soft_cap": soft_cap, "chunk": chunk}
    result = choose_backend(hidden).selected_log_probs_from_hidden(hidden, head, ids, temperature, **settings)
    known = is_in_range(ids, head.shape[0])
    return namespace(result).where(known, result, float("nan"))
