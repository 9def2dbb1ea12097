"""Rollouts of numpy arrays for hypothesis: values are drawn, shapes are not, so that JAX compiles once."""

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from credit import Rollouts
from credit.fields import EXTRA, EXTRAS, is_per_token, list_arrays, map_arrays, replace_arrays
from credit.selftest.estimators import GIVEN, draw_field
from credit.types import FIELDS

N, T = 8, 6
GARBAGE = {
    "f": np.array([np.nan, np.inf, -np.inf, -5.0, 1e30], np.float32),
    "i": np.array([-7, 99, 2**31 - 1]),
    "b": np.array([False, True]),
}

examples = settings(
    max_examples=10,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

group_labels = st.lists(st.sampled_from((0, 0, 3, 3, 5, 7)), min_size=N, max_size=N)
row_rewards = st.lists(st.sampled_from((0.0, 1.0, 0.7, 0.1, -1.0, 0.25)), min_size=N, max_size=N)
row_masks = st.lists(st.integers(0, 2**T - 1), min_size=N, max_size=N)
bad_rewards = st.lists(st.sampled_from((0.0, 0.0, 0.0, np.nan, np.inf, -np.inf)), min_size=N, max_size=N)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def rollouts(draw, *, offsets=(0.0, 0.7, -3.0, 100.0, 1e4), invalid=True, by_field=None):
    """A batch with ragged groups in any order, holes in the masks, and garbage wherever no token is.

    `invalid` also makes rows invalid, by their reward or (drawn, unless `by_field` says it) by the field
    `valid`, with and without which JAX compiles two programs.
    """
    groups = np.array(draw(group_labels))
    rewards = np.array(draw(row_rewards))
    if draw(st.booleans()):
        rewards[groups == groups[0]] = rewards[0]
    rewards = (rewards + draw(st.sampled_from(offsets))).astype(np.float32)
    mask = (np.array(draw(row_masks))[:, None] >> np.arange(T)) % 2 == 1
    bad = np.array(draw(bad_rewards)) if invalid else np.zeros(N)
    rewards = (rewards + bad).astype(np.float32)
    by_field = draw(st.booleans()) if by_field is None else by_field
    field = np.isfinite(rewards) & np.roll(np.isfinite(bad), 1) if by_field else None
    valid = np.isfinite(rewards) if field is None else field
    plain = Rollouts(rewards, groups, mask, **token_fields(draw(seeds)), valid=field)
    return fill(plain, mask & valid[:, None], draw(seeds))


def token_fields(seed):
    """Every optional field but `valid`, in its range; scores from tiny to 1, some exactly 0."""
    rng = np.random.default_rng(seed)
    optional = {name: rule for name, rule in FIELDS.items() if name not in GIVEN}
    fields = {name: draw_field(rule, rng, N, T) for name, rule in optional.items()}
    extra = {name.removeprefix(EXTRA): draw_field(rule, rng, N, T) for name, rule in EXTRAS.items()}
    extra |= {
        "states": rng.integers(-1, 2, (N, T)) * 10**6,
        "own": rng.normal(size=(N, T)),
        "own_flags": rng.random((N, T)) < 0.5,
        "own_features": rng.normal(size=(N, 3)),
    }
    scores = {
        "normalized_entropy": rng.uniform(size=(N, T)) * rng.integers(0, 4, (N, T)).clip(0, 1),
        "deviation": 10 ** rng.uniform(-6, 0, size=(N, T)) * rng.integers(0, 8, (N, T)).clip(0, 1),
    }
    turns = np.sort(rng.integers(0, 3, size=(N, T)), axis=1)
    return (
        fields
        | {name: array.astype(np.float32) for name, array in scores.items()}
        | {"turns": turns, "extra": extra}
    )


def fill(batch, keep, seed):
    """The batch with garbage, NaN and infinities among it, on the tokens that `keep` [N, T] leaves out."""
    rng = np.random.default_rng(seed)
    arrays = {n: a for n, a in list_arrays(batch).items() if is_per_token(n, a, batch.mask)}
    return replace_arrays(
        batch,
        {
            name: np.where(keep, array, rng.choice(GARBAGE[array.dtype.kind], size=array.shape))
            for name, array in arrays.items()
        },
    )


def take(batch, rows):
    """Those rows of the batch, in that order; labels are kept."""
    return map_arrays(lambda array: array if array.ndim == 0 else array[rows], batch)


def dense(batch):
    """The batch with its labels renamed to 0, 1, ... so that they fit its rows."""
    return batch._replace(groups=np.unique(batch.groups, return_inverse=True)[1])
