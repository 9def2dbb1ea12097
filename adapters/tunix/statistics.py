"""Token statistics of sampled completions, from actor and reference under the actor's mesh."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from flax.linen import partitioning
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tunix.rl import common
from tunix.rl.rl_cluster import Role

import credit
from credit.adapters.fields import REFERENCE_FIELDS, compute_by_name

Array = Any


class Layout(NamedTuple):
    """The axes of the mesh over which the logits' rows and vocabulary are sharded; either may be empty."""

    mesh: Mesh
    rows: tuple[str, ...]
    vocabulary: tuple[str, ...]

    def size(self, axes: tuple[str, ...]) -> int:
        """The number of devices along the axes."""
        return prod(self.mesh.shape[axis] for axis in axes)


class Ids(NamedTuple):
    """The tokenizer's special ids, as Tunix's `process_ids` takes them."""

    pad: int
    eos: int


def compute_statistics(
    cluster: Any, example: Any, names: Sequence[str], temperature: float, actor: Any = None
) -> dict[str, Array]:
    """The statistics [B, T] of those names of a TrainExample's completions; 0 outside its mask.

    The reference runs only if one of them needs it. Each device computes one row at a time, so that of the
    logits [B, T, V] only one row of each model is in memory.

    Args:
        actor: the actor's state; None: that of the trainer's model.
    """
    models = [cluster.actor_trainer.model]
    if set(names) & set(REFERENCE_FIELDS):
        models.append(cluster.inference_worker.get_model("reference"))
    graphs, states = zip(*(nnx.split(model) for model in models), strict=True)
    if actor is not None:
        states = (actor, *states[1:])
    ids = Ids(cluster.rollout.pad_id(), cluster.rollout.eos_id())
    rows = example.prompt_ids, example.completion_ids, example.completion_mask > 0
    with actor_context(cluster):
        place = mesh_layout(cluster.cluster_config)
        return score_rows(graphs, states, rows, temperature, ids, place, tuple(names))


def mesh_layout(config: Any) -> Layout:
    """Rows along the trainer's data axis, the vocabulary along the mesh's other axes."""
    mesh = config.role_to_mesh[Role.ACTOR]
    first = next(iter(config.training_config.data_sharding_axis), None) or ()
    rows = (first,) if isinstance(first, str) else tuple(first)
    return Layout(mesh, rows, tuple(axis for axis in mesh.axis_names if axis not in rows))


@contextmanager
def actor_context(cluster: Any) -> Iterator[None]:
    """The actor's mesh and axis rules, which JAX keeps per thread; Tunix samples in one of its own."""
    config = cluster.cluster_config
    rules = (config.role_to_logical_axis_rule or {}).get(Role.ACTOR)
    with ExitStack() as stack:
        stack.enter_context(config.role_to_mesh[Role.ACTOR])
        if rules is not None:
            stack.enter_context(partitioning.axis_rules(rules))
        yield


@partial(jax.jit, static_argnames=("ids", "place", "names"))
def score_rows(
    graphs: tuple[Any, ...],
    states: tuple[Any, ...],
    rows: tuple[Array, Array, Array],
    temperature: Array | float,
    ids: Ids,
    place: Layout,
    names: tuple[str, ...] = credit.TokenStatistics._fields,
) -> dict[str, Array]:
    """The statistics of policy and reference, or of the policy alone, for rows [B, ...]."""

    def score(part: tuple[Array, Array, Array]) -> dict[str, Array]:
        prompt, completion, mask = part
        before = prompt.shape[1] - 1
        # qwix changes its modules when they are called, which a loop allows for modules made within it.
        models = [nnx.merge(graph, state) for graph, state in zip(graphs, states, strict=True)]
        logits = [_compute_logits(model, prompt, completion, ids) for model in models]
        # The ids are shifted to the logits that predict them, since slicing the logits would copy them.
        next_ids = jnp.pad(completion, ((0, 0), (before, 1)))
        chosen = jnp.pad(mask, ((0, 0), (before, 1)))
        found = _compute_statistics(logits, next_ids, chosen, temperature, place, names)
        return {name: field[:, before:-1] for name, field in found.items()}

    found = lax.map(score, tuple(_distribute_rows(array, place) for array in rows))
    return {name: _collect_rows(field, len(rows[0])) for name, field in found.items()}


def _distribute_rows(array: Array, place: Layout) -> Array:
    """Rows [B, ...] as [steps, devices, ...], so that each device computes its own rows."""
    devices = place.size(place.rows)
    padding = ((0, -len(array) % devices),) + ((0, 0),) * (array.ndim - 1)
    padded = jnp.pad(array, padding, mode="edge")
    distributed = padded.reshape(devices, -1, *array.shape[1:]).swapaxes(0, 1)
    return lax.with_sharding_constraint(
        distributed, NamedSharding(place.mesh, PartitionSpec(None, place.rows))
    )


def _collect_rows(field: Array, count: int) -> Array:
    """[steps, devices, T] as [B, T]."""
    return field.swapaxes(0, 1).reshape(-1, field.shape[-1])[:count]


def _compute_logits(model: Any, prompt: Array, completion: Array, ids: Ids) -> Array:
    """The logits [b, P + T, V], by the same forward as in Tunix's loss."""
    tokens, positions, attention_mask, segments = common.process_ids(prompt, completion, ids.pad, ids.eos)
    inputs = {"positions": positions, "cache": None, "attention_mask": attention_mask}
    if takes_segments(model):
        inputs["segment_ids"] = segments
    return model(tokens, **inputs)[0]


def takes_segments(model: Any) -> bool:
    """Whether Tunix calls the model with segment_ids."""
    accepted = inspect.signature(model.__call__).parameters.values()
    return any(each.name == "segment_ids" or each.kind is each.VAR_KEYWORD for each in accepted)


def _compute_statistics(
    sides: list[Array],
    next_ids: Array,
    mask: Array,
    temperature: Array | float,
    place: Layout,
    names: tuple[str, ...],
) -> dict[str, Array]:
    """The statistics of one model's logits [b, L, V] or two.

    Each device reads its own rows and, if the vocabulary divides evenly, columns.
    """
    devices = place.size(place.vocabulary)
    axes = place.vocabulary if devices > 1 and sides[0].shape[-1] % devices == 0 else ()
    tokens, logits = PartitionSpec(place.rows), PartitionSpec(place.rows, None, axes)
    sharded: dict[str, Any] = {"process_group": axes} if axes else {}

    def local(sides: list[Array], next_ids: Array, mask: Array) -> dict[str, Array]:
        x, y = sides[0], sides[1] if len(sides) == 2 else None
        options = {"temperature": temperature, "mask": mask, **sharded}
        return compute_by_name(credit.token_statistics, names, x, y, next_ids, **options)

    # This holds for one device too, since the compiler does not shard a TPU's kernel.
    inputs = (logits, tokens, tokens)
    run = jax.shard_map(local, mesh=place.mesh, in_specs=inputs, out_specs=tokens, check_vma=False)
    return run(sides, next_ids, mask)
