"""Where a model's logits come from: given, or multiplied from hidden states by a linear head."""

from typing import Any, NamedTuple

Array = Any


class Logits(NamedTuple):
    """Logits that the caller holds."""

    logits: Array  # [..., V]

    @property
    def columns(self) -> int:
        """Vocabulary entries, padding included."""
        return int(self.logits.shape[-1])

    @property
    def arrays(self) -> tuple[Array, ...]:
        """What the computing dtype follows from; the first array is [..., V] or [..., D]."""
        return (self.logits,)


class LinearHead(NamedTuple):
    """Logits soft_cap tanh(z / soft_cap) with z = scale (hidden head^T + bias), which are made in tiles."""

    hidden: Array  # [..., D]
    head: Array  # [V, D]
    bias: Array | None = None  # [V]
    scale: float = 1.0
    soft_cap: float | None = None

    @property
    def columns(self) -> int:
        """Vocabulary entries, padding included."""
        return int(self.head.shape[0])

    @property
    def arrays(self) -> tuple[Array, ...]:
        """What the computing dtype follows from; the bias does not count."""
        return self.hidden, self.head


Source = Logits | LinearHead
