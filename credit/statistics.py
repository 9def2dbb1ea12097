"""From logits, or hidden states and heads, to numbers per token."""

from typing import Any

from credit import logits_validation, sharded, validation
from credit.backends import array_api, choose_backend
from credit.backends.arrays import is_in_range, namespace, stop_gradient
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

    d comes from squares of differences and is accurate where policy and reference nearly agree; it
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
        ValueError: shapes, devices or libraries do not fit, T <= 0, or an id outside the vocabulary.
            Ids on an accelerator or under tracing are not looked at: there the log-probs become NaN.

    Source: DGPO, arXiv 2605.03327.
    """
    if process_group is not None:
        given = token_ids, temperature, mask, vocab_size, process_group
        return sharded.token_statistics((policy_logits,), (reference_logits,), *given)
    validation.check_same_library(policy_logits=policy_logits, reference_logits=reference_logits)
    policy_logits = logits_validation.slice_logits("policy_logits", policy_logits, vocab_size)
    reference_logits = logits_validation.slice_logits("reference_logits", reference_logits, vocab_size)
    validation.check_shape("reference_logits", reference_logits, policy_logits.shape, "as policy_logits")
    size = policy_logits.shape[-1]
    ids, chosen = logits_validation.prepare_token_ids(policy_logits, token_ids, temperature, mask, size)
    statistics = choose_backend(policy_logits).token_statistics(
        policy_logits, reference_logits, ids, temperature
    )
    return _postprocess(statistics, ids, chosen, size)


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
    """
    if process_group is not None:
        policy = policy_hidden, policy_head, policy_bias
        reference = reference_hidden, reference_head, reference_bias
        given = token_ids, temperature, mask, vocab_size, process_group, chunk
        return sharded.token_statistics(policy, reference, *given, scale=scale, soft_cap=soft_cap)
    arrays = {
        "policy_hidden": policy_hidden,
        "policy_head": policy_head,
        "reference_hidden": reference_hidden,
        "reference_head": reference_head,
        "policy_bias": policy_bias,
        "reference_bias": reference_bias,
    }
    validation.check_same_library(**arrays)
    logits_validation.check_head_shapes("policy_", policy_hidden, policy_head, policy_bias)
    logits_validation.check_head_shapes("reference_", reference_hidden, reference_head, reference_bias)
    logits_validation.check_tiling(soft_cap, chunk)
    cut: dict[str, Any] = {
        name: logits_validation.slice_head(name, arrays[name], vocab_size)
        for name in arrays
        if "hidden" not in name
    }
    size = cut["policy_head"].shape[0]
    if cut["reference_head"].shape[0] != size:
        raise ValueError(
            f"the heads have {size} and {cut['reference_head'].shape[0]} rows; expected one "
            "vocabulary (give vocab_size if they are padded differently)"
        )
    ids, chosen = logits_validation.prepare_token_ids(policy_hidden, token_ids, temperature, mask, size)
    lead = tuple(reference_hidden.shape[:-1])
    validation.check_shape("token_ids", token_ids, lead, "as reference_hidden without its last axis")
    statistics = choose_backend(policy_hidden).token_statistics_from_hidden(
        policy_hidden,
        cut["policy_head"],
        reference_hidden,
        cut["reference_head"],
        ids,
        temperature,
        policy_bias=cut["policy_bias"],
        reference_bias=cut["reference_bias"],
        scale=scale,
        soft_cap=soft_cap,
        chunk=chunk,
    )
    return _postprocess(statistics, ids, chosen, size)


def selected_log_probs(
    logits: Array,
    token_ids: Array,
    *,
    temperature: Array | float = 1.0,
    vocab_size: int | None = None,
    process_group: Any = None,
) -> Array:
    """log p(a) [...] in nats of ids a [...] under softmax(logits [..., V] / T), differentiable.

    d log p(a) / dx_v = (1[v = a] - p_v) / T. Only the logits are kept for the gradient, which has
    their type; the result is float32 (float64 for float64). Errors as in `token_statistics`.
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

    Types and errors as in `selected_log_probs`; vocab_size and process_group as in `token_statistics`
    (each rank's logits get their own gradient).
    """
    if process_group is not None:
        return sharded.log_probs_and_entropy(logits, token_ids, temperature, vocab_size, process_group)
    validation.check_same_library(logits=logits, token_ids=token_ids)
    logits = logits_validation.slice_logits("logits", logits, vocab_size)
    ids, _ = logits_validation.prepare_token_ids(logits, token_ids, temperature, None, logits.shape[-1])
    log_probs, entropy = choose_backend(logits).log_probs_and_entropy(logits, ids, temperature)
    xp = namespace(logits)
    known = is_in_range(ids, logits.shape[-1])
    return xp.where(known, log_probs, float("nan")), entropy


def _postprocess(statistics: Any, ids: Array, chosen: Array | None, size: int) -> TokenStatistics:
    finish = getattr(choose_backend(ids), "finish", array_api.postprocess)
    return TokenStatistics(*(stop_gradient(field) for field in finish(statistics, ids, chosen, size)))
