"""From two models' logits to numbers per token."""

from collections.abc import Sequence
from typing import Any, Literal, overload

from credit import logits_validation, validation
from credit.backends import choose_backend, choose_sharded_backend
from credit.backends.arrays import stop_gradient
from credit.backends.vocab.sources import LinearHead, Logits, Source
from credit.types import Array, TokenStatistics

Name = Literal["sum_squares", "kl", "reverse_kl", "entropy"]


@overload
def token_statistics(
    policy_logits: Array,
    reference_logits: Array | None,
    token_ids: Array,
    *,
    temperature: Array | float = 1.0,
    mask: Array | None = None,
    vocab_size: int | None = None,
    process_group: Any = None,
    also: tuple[()] = (),
) -> TokenStatistics: ...


@overload
def token_statistics(
    policy_logits: Array,
    reference_logits: Array | None,
    token_ids: Array,
    *,
    temperature: Array | float = 1.0,
    mask: Array | None = None,
    vocab_size: int | None = None,
    process_group: Any = None,
    also: tuple[Name, *tuple[Name, ...]] | list[Name],
) -> tuple[TokenStatistics, dict[str, Array]]: ...


def token_statistics(
    policy_logits: Array,
    reference_logits: Array | None,
    token_ids: Array,
    *,
    temperature: Array | float = 1.0,
    mask: Array | None = None,
    vocab_size: int | None = None,
    process_group: Any = None,
    also: Sequence[Name] = (),
) -> TokenStatistics | tuple[TokenStatistics, dict[str, Array]]:
    """Log-probs, entropy and squared Hellinger distance of two models, in one pass over the vocabulary.

        p = softmax(x / T)    q = softmax(y / T)
        log p(a)    log q(a)    H(p) / log V    d = 1 - sum_v sqrt(p_v q_v)

    d is a sum of squared differences, so it is accurate where policy and reference nearly agree; it
    is exactly 0 for identical logits. Log-probs are in nats; entropy and deviation lie in [0, 1].
    No gradient flows through the result: `selected_log_probs` is the differentiable one.

    Args:
        policy_logits: x [..., V], any floating type (float32 inside; float64 if all is float64).
        reference_logits: y [..., V], or None without a reference: then the policy's logits alone are
            read, and reference_log_probs and deviation of the result are None.
        token_ids: a [...], integers.
        temperature: T > 0, a number or an array [...].
        mask: [...], bool or 0/1. Where it is 0, ids are not read and the results are 0.
        vocab_size: V without padding columns; logits beyond it are ignored.
        process_group: the ranks over which the vocabulary is sharded, in their order (a group of
            torch.distributed; inside JAX's shard_map the axis name). Logits are then this rank's
            columns, ids and vocab_size those of the whole; every rank gets the whole's statistics.
        also: names of statistics to compute in the same pass, besides the four:

            - "sum_squares": sum_v p_v^2, in (0, 1]
            - "kl": KL(p || q) = sum_v p_v ln(p_v / q_v), nats, at least 0
            - "reverse_kl": KL(q || p), nats, at least 0
            - "entropy": H(p) in nats

    Returns:
        TokenStatistics, each [...]; with names in `also` a pair of it and a dict of exactly these names,
        each [...] of the same type, which fits `Rollouts(..., extra=...)`. A KL is +inf where one model
        has mass, which does not underflow, at a token whose logit is -inf in the other, and exactly 0 for
        identical logits.
        A NaN or +inf logit, or a row of -inf only, gives NaN for its own token and model.

    Raises:
        ValueError: shapes, devices, dtypes or libraries do not fit, T < 1e-30, an id outside the
            vocabulary, an unknown name in `also`, a KL without a reference, or a process group with
            a library other than torch and JAX. Ids on an accelerator or under tracing are not
            checked: there the log-probs become NaN.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> logits = np.log([[0.5, 0.5], [0.9, 0.1]])
        >>> statistics = credit.token_statistics(logits, logits, np.array([0, 1]))
        >>> np.exp(statistics.log_probs).round(6).tolist()
        [0.5, 0.1]
        >>> statistics.normalized_entropy.round(3).tolist(), statistics.deviation.tolist()
        ([1.0, 0.469], [0.0, 0.0])
        >>> other = np.log([[0.5, 0.5], [0.5, 0.5]])
        >>> _, further = credit.token_statistics(logits, other, np.array([0, 1]), also=("kl", "sum_squares"))
        >>> {name: value.round(3).tolist() for name, value in further.items()}
        {'kl': [0.0, 0.368], 'sum_squares': [0.5, 0.82]}

    Source: DGPO, arXiv 2605.03327.
    """
    validation.check_same_library(policy_logits=policy_logits, reference_logits=reference_logits)
    sharded = process_group is not None
    policy = logits_validation.prepare_logits("policy_logits", policy_logits, vocab_size, sharded)
    reference = None
    if reference_logits is not None:
        given = "reference_logits", reference_logits, vocab_size, sharded
        reference = logits_validation.prepare_logits(*given)
        validation.check_shape("reference_logits", reference.logits, policy.logits.shape, "as policy_logits")
    return compute_statistics(
        policy, reference, token_ids, temperature, mask, vocab_size, None, process_group, also
    )


def compute_statistics(
    policy: Source,
    reference: Source | None,
    token_ids: Array,
    temperature: Array | float,
    mask: Array | None,
    vocab_size: int | None,
    chunk: int | None,
    process_group: Any,
    also: Sequence[str],
) -> Any:
    """The statistics of checked sources, whose ids, mask, temperature and names are checked here."""
    names = logits_validation.check_names(also, alone=reference is None)
    like = policy.arrays[0]
    shard, size = logits_validation.locate_shard(policy, vocab_size, process_group)
    ids, chosen = logits_validation.prepare_token_ids(like, token_ids, temperature, mask, size)
    backend = choose_backend(like)
    if shard is not None:
        statistics = choose_sharded_backend(like).sharded_token_statistics(
            policy, reference, ids, temperature, shard, size, chunk, names
        )
    elif isinstance(policy, LinearHead) and not isinstance(reference, Logits):
        other = LinearHead(None, None) if reference is None else reference
        statistics = backend.token_statistics_from_hidden(
            policy.hidden,
            policy.head,
            other.hidden,
            other.head,
            ids,
            temperature,
            names,
            policy_bias=policy.bias,
            reference_bias=other.bias,
            scale=policy.scale,
            soft_cap=policy.soft_cap,
            chunk=chunk,
        )
    else:
        logits = None if reference is None else reference.arrays[0]
        statistics = backend.token_statistics(like, logits, ids, temperature, names)
    fields = [stop_gradient(field) for field in backend.postprocess(statistics, ids, chosen, size)]
    four = TokenStatistics(*fields[:4])
    if reference is None:
        four = four._replace(reference_log_probs=None, deviation=None)
    # A list is always answered by a pair, as its type says.
    return (four, dict(zip(names, fields[4:], strict=True))) if names or also != () else four
