"""Tunix's policy loss, over packed rows as over unpacked ones, and over all micro-batches of a step."""

from collections.abc import Callable
from copy import copy
from typing import Any

import jax.numpy as jnp
from flax import nnx
from tunix.rl import function_registry
from tunix.rl.rl_cluster import Mode

from credit.adapters.tunix.statistics import takes_segments

Array = Any


class PackedModel(nnx.Module):
    """A model over packed rows, each of whose responses sees itself alone and no later token.

    Tunix has no attention mask for packed rows, and its models then keep segments apart and nothing else:
    only splash attention, on TPUs, is causal by itself.
    """

    def __init__(self, model: Any, pad: int) -> None:
        self.model = model
        self.pad = pad

    def __call__(
        self, input_tokens: Array, positions: Array, cache: Any, attention_mask: Any, segment_ids: Array
    ) -> Any:
        visible = mask_packed(segment_ids, input_tokens != self.pad)
        # As in unpacked rows, a padding token that was sampled takes no position.
        positions = jnp.maximum(visible.sum(axis=-1) - 1, 0)
        segments = {"segment_ids": segment_ids} if takes_segments(self.model) else {}
        return self.model(input_tokens, positions=positions, cache=cache, attention_mask=visible, **segments)


def mask_packed(segments: Array, present: Array) -> Array:
    """The attention mask [B, L, L] of packed rows: present tokens of the same segment, up to the own."""
    places = jnp.arange(segments.shape[-1])
    same = segments[:, :, None] == segments[:, None, :]
    return same & present[:, None, :] & (places[None, :, None] >= places[None, None, :])


def make_loss(learner: Any) -> Callable[..., tuple[Array, dict[str, Array]]]:
    """The policy loss of the learner's config, as Tunix's trainer calls it."""
    config, rollout = learner.algo_config, learner.rl_cluster.rollout
    policy_loss = function_registry.get_policy_loss_fn(config.policy_loss_fn)
    ids = {"pad_id": rollout.pad_id(), "eos_id": rollout.eos_id()}
    width = learner.rl_cluster.get_rollout_config(mode=Mode.TRAIN).max_tokens_to_generate

    def compute(model: Any, train_example: Any, algo_config: Any) -> tuple[Array, dict[str, Array]]:
        del algo_config  # the learner's, which is known
        if train_example.segment_ids is None:
            loss, aux = policy_loss(model, train_example, algo_config=config, **ids)
        else:
            packed, settings = PackedModel(model, ids["pad_id"]), copy(config)
            settings.loss_agg_mode = "token-mean"
            example, factor = weigh_packed(train_example, config.loss_agg_mode, width)
            loss, aux = policy_loss(packed, example, algo_config=settings, **ids)
            loss = loss * factor
        if train_example.share is not None:
            loss = loss * train_example.share.mean()
        return loss, aux

    return compute


def weigh_packed(example: Any, aggregation: str, width: int) -> tuple[Any, Array]:
    """The packed example and a factor with which a token mean is the aggregation over its responses.

    Args:
        aggregation: Tunix's loss_agg_mode, which takes a packed row for one response.
        width: T of the unpacked rows.
    """
    kept = (example.completion_mask > 0) & ~jnp.isnan(example.advantages)
    mask = kept.astype(jnp.float32)
    same = example.segment_ids[:, :, None] == example.segment_ids[:, None, :]
    lengths = (same * mask[:, None, :]).sum(axis=-1)
    each = mask / jnp.maximum(lengths, 1.0)  # 1 in each response that has a token
    tokens, responses = mask.sum(), jnp.maximum(each.sum(), 1.0)
    factors = {
        "token-mean": 1.0,
        "sequence-mean-token-mean": 1.0,
        "sequence-mean-token-scale": tokens / responses / width,
        "seq-mean-token-sum": tokens / responses,
        "sequence-mean-token-sum-norm": tokens / responses,
    }
    weights = each if aggregation == "sequence-mean-token-mean" else mask
    advantages = jnp.nan_to_num(example.advantages)
    return example.replace(completion_mask=weights, advantages=advantages), factors[aggregation]
