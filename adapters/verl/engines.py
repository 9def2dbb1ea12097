"""What keeps a worker with one of verl's engines from computing exact statistics, by the engine's options."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from omegaconf import OmegaConf

OFF = (None, False, 0, 1, "disabled")
"""Values with which an option changes nothing."""


class Limit(NamedTuple):
    """An option below actor_rollout_ref that has to be off."""

    option: str
    reason: str
    off: str = "False"


FUSED = tuple(
    Limit(f"{role}.use_fused_kernels", "does not compute the logits that are compared")
    for role in ("model", "actor")
)
MEGATRON = (
    *FUSED,
    Limit(
        "{role}.megatron.virtual_pipeline_model_parallel_size",
        "splits the model of a rank into several, and has not been tried",
        "null",
    ),
    Limit(
        "{role}.megatron.router_replay.mode",
        "records and replays routes in all models of a process, so the reference would replay the policy's",
        "disabled",
    ),
    Limit("{role}.megatron.dynamic_context_parallel", "turns off verl's access to logits"),
    Limit("{role}.megatron.pad_to_length", "turns off verl's access to logits"),
    Limit("model.mtp.enable", "adds layers to the policy that the reference has not, and has not been tried"),
)
TURBO = (*FUSED, Limit("{role}.fsdp_config.pad_to_length", "turns off verl's access to logits"))
LIMITS: dict[str, tuple[Limit, ...]] = {
    "fsdp": (),  # whose hidden states are read; a worker refuses models that do not allow it
    "fsdp2": (),
    "fsdp_turbo": TURBO,
    "veomni": (*FUSED, Limit("{role}.veomni.pad_to_length", "turns off verl's access to logits")),
    "megatron": MEGATRON,
}
"""The engines that show logits or hidden states of a micro-batch to a function, and what turns that off."""

OF_FSDP = (
    "ulysses_sequence_parallel_size",
    *("fsdp_config.pad_to_length", "fsdp_config.pad_to_length_bucket"),
)
LAYOUT = {
    "fsdp": OF_FSDP,
    "fsdp2": OF_FSDP,
    "megatron": tuple(
        f"megatron.{option}"
        for option in (
            *("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size"),
            *("expert_model_parallel_size", "expert_tensor_parallel_size", "sequence_parallel", "dtype"),
        )
    ),
}
"""By engine, the options in which policy and reference must agree; for others, the size of Ulysses groups."""


def find_obstacle(name: str, models: Any, two_models: bool) -> str | None:
    """Why the engine's workers compute no exact statistics, and the way out; None if they do.

    Args:
        name: the estimator, as verl's users write it.
        models: verl's section actor_rollout_ref.
        two_models: whether the reference is a model of its own.
    """
    strategy = models.actor.strategy
    if strategy not in LIMITS:
        return (
            f"{name} takes exact statistics from engines of verl's that show their logits, which "
            f"strategy={strategy} does not; set actor_rollout_ref.actor.strategy=fsdp2"
        )
    obstacles = _list_limits(name, models, strategy, ("actor", "ref") if two_models else ("actor",))
    return next(obstacles, None) or (_find_other_layout(name, models, strategy) if two_models else None)


def _list_limits(name: str, models: Any, strategy: str, roles: tuple[str, ...]) -> Iterator[str]:
    for limit in LIMITS[strategy]:
        for option in dict.fromkeys(limit.option.format(role=role) for role in roles):
            value = OmegaConf.select(models, option, default=None)
            if value is True or value not in OFF:  # True equals 1
                yield (
                    f"actor_rollout_ref.{option}={value} {limit.reason}, and {name} needs exact statistics; "
                    f"set actor_rollout_ref.{option}={limit.off}"
                )


def _find_other_layout(name: str, models: Any, strategy: str) -> str | None:
    for option in ("strategy", *LAYOUT.get(strategy, ("ulysses_sequence_parallel_size",))):
        ours, theirs = (OmegaConf.select(models, f"{role}.{option}") for role in ("actor", "ref"))
        if ours != theirs:
            return (
                f"{name} compares policy and reference in one layout, but actor_rollout_ref.actor.{option} "
                f"is {ours} and actor_rollout_ref.ref.{option} is {theirs}; set the latter to {ours}"
            )
    return None
