"""The arrays that a loss gets: checked, of one shape and float type, and 0 outside the mask."""

from collections.abc import Callable
from typing import NamedTuple

from credit import validation
from credit.backends.arrays import namespace
from credit.types import Array


class LossInputs(NamedTuple):
    """What an objective reads, each [N, T]; only log_probs has a gradient, and all are 0 outside the mask."""

    log_probs: Array
    """log p of the policy that is trained, nats."""
    old_log_probs: Array
    """log p_old of the policy for which the advantages were computed, nats."""
    advantages: Array
    """A of each token."""
    mask: Array
    """bool, True on the tokens that the policy chose."""


def check_log_probs(log_probs: Array) -> None:
    """Raises ValueError unless log_probs is [N, T] with at least one row and one token."""
    if log_probs.ndim != 2 or 0 in log_probs.shape:
        shape = tuple(log_probs.shape)
        raise ValueError(f"log_probs has shape {shape}; expected [N, T], at least one row and one token")


def repeat_for_tokens(advantages: Array, log_probs: Array) -> Array:
    """Advantages [N, T], from those or from one number per response."""
    if advantages.ndim != 1:
        return advantages
    validation.check_shape("advantages", advantages, log_probs.shape[:1], "[N] of log_probs")
    return advantages[:, None] + namespace(log_probs).zeros_like(log_probs, dtype=advantages.dtype)


def make_cleaner(log_probs: Array, mask: Array) -> tuple[Array, Callable[[str, Array], Array]]:
    """The mask as bool, and a function that checks an array and makes it float and 0 outside the mask."""
    xp = namespace(log_probs)
    chosen = xp.astype(mask, xp.bool)
    dtype = xp.float64 if log_probs.dtype == xp.float64 else xp.float32
    validation.check_shape("mask", chosen, log_probs.shape, "as log_probs")

    def clean(name: str, array: Array) -> Array:
        validation.check_shape(name, array, log_probs.shape, "as log_probs")
        return xp.where(chosen, xp.astype(array, dtype), 0.0)

    return chosen, clean
