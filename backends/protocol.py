"""What a backend is: a module with the functions of `Backend`, and optionally those of `ShardedBackend`.

`tests/test_backends.py` holds every backend to the signatures here, and so does the type checker in
`choose_backend`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from credit.backends.vocab.sources import Source

Array = Any
Statistics = tuple[Array, ...]


class Shard(NamedTuple):
    """The part of a sharded vocabulary that this rank holds."""

    group: Any  # the ranks in the vocabulary's order: a torch process group, or a JAX mesh axis's name
    start: Any  # id of this rank's first column
    columns: int  # columns of this rank, padding included
    total: int  # columns of all ranks, padding included


class Backend(Protocol):
    """The functions that every backend has.

    Their callers have checked shapes, dtypes and temperatures. Ids [...] have the library's index type;
    masked tokens have the id UNREAD, and their results are not used. Statistics are log p(a), log q(a) and
    H(p) in nats and the squared Hellinger distance d, and then those that `also` names (`vocab/by_name.py`),
    in its order, each [...]. A reference that is None is not there: then log q(a) and d are NaN, `also` names
    no divergence, and one model is read or multiplied.
    """

    def token_statistics(
        self,
        policy_logits: Array,
        reference_logits: Array | None,
        token_ids: Array,
        temperature: Array | float,
        also: Sequence[str] = (),
    ) -> Statistics:
        """The statistics of two models' logits [..., V]; no gradient flows through them."""

    def token_statistics_from_hidden(
        self,
        policy_hidden: Array,
        policy_head: Array,
        reference_hidden: Array | None,
        reference_head: Array | None,
        token_ids: Array,
        temperature: Array | float,
        also: Sequence[str] = (),
        *,
        policy_bias: Array | None,
        reference_bias: Array | None,
        scale: float,
        soft_cap: float | None,
        chunk: int | None,
    ) -> Statistics:
        """The same from hidden states [..., D] and heads [V, D], in tiles of `chunk` vocabulary entries."""

    def log_probs_and_entropy(
        self, logits: Array, token_ids: Array, temperature: Array | float
    ) -> tuple[Array, Array]:
        """log p(a) and H(p), both [...] in nats, differentiable in the logits where the library is."""

    def selected_log_probs_from_hidden(
        self,
        hidden: Array,
        head: Array,
        token_ids: Array,
        temperature: Array | float,
        *,
        bias: Array | None,
        scale: float,
        soft_cap: float | None,
        chunk: int | None,
    ) -> Array:
        """log p(a) [...], differentiable in hidden states, head and bias where the library is."""

    def postprocess(self, statistics: Any, ids: Array, chosen: Array | None, size: int) -> tuple[Array, ...]:
        """The statistics as users get them: H divided by ln V, log-probs NaN for ids outside, 0 where masked.

        Those that were asked for follow the four as they are, but for the mask.
        """

    def describe_path(self, logits: Array, also: Sequence[str] = ()) -> str:
        """The name of the implementation that computes these logits' statistics, for `credit.check`."""


@runtime_checkable
class ShardedBackend(Backend, Protocol):
    """The optional functions, for a vocabulary sharded over ranks; every rank gets the whole's result."""

    def locate_shard(self, columns: int, group: Any, like: Array) -> Shard:
        """Where this rank's columns lie; `like` is an array on the rank's device."""

    def sharded_token_statistics(
        self,
        policy: Source,
        reference: Source | None,
        token_ids: Array,
        temperature: Array | float,
        shard: Shard,
        size: int,
        chunk: int | None,
        also: Sequence[str] = (),
    ) -> Statistics:
        """The statistics of a vocabulary of `size`; columns of any rank from id `size` on are padding."""

    def sharded_log_probs_and_entropy(
        self, logits: Array, token_ids: Array, temperature: Array | float, shard: Shard, size: int
    ) -> tuple[Array, Array]:
        """log p(a) and H(p), differentiable in this rank's logits."""
