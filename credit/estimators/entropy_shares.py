"""A token's or response's share of an entropy, which GTPO and GRPO-S add to the reward."""

from credit import groups
from credit.backends.arrays import group_sum, namespace
from credit.types import Array


def share_in_group(values: Array, chosen: Array, ids: Array) -> Array:
    """n v_i / sum_k v_k [N], the sum over the n chosen entries of the same id; 0 for entries not chosen."""
    xp = namespace(values)
    sums = group_sum(xp.where(chosen, values, 0.0), ids)
    count = groups.size(chosen, ids, values.dtype)
    return xp.where(chosen, count * values / xp.where(sums == 0.0, 1.0, sums), 0.0)
