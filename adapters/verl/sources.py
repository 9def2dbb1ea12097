"""Where verl has the statistics that an estimator needs; what has no source is refused with the reason.

There are two sources: the workers of credit's trainer modes, which compute exact statistics of both models;
and verl's own passes, which leave the log-probs of sampled tokens and the policy's entropy behind on every
engine.
"""

from typing import Any, NamedTuple

from omegaconf import OmegaConf
from verl.trainer.ppo.utils import need_reference_policy

from credit.adapters.verl import engines, passes
from credit.adapters.verl.hooks import FRAMEWORK
from credit.adapters.verl.settings import Choice, Source

V1 = ("sync", "colocate_async", "separate_async")
"""verl's own trainer modes, each of which one of credit's extends."""
HIDDEN_STATES = ("fsdp", "fsdp2")
"""Engines whose hidden states are compared, in tiles of a budget; those of others are whole logits."""
BINARY = (
    ", or use +algorithm.credit.divergence=binary (a weaker signal, from the log-probs of sampled tokens "
    "alone)"
)


class Mode(NamedTuple):
    """A trainer of verl's, as its users choose it."""

    name: str
    """The option that chooses it, for messages."""
    scoring: str
    """The options that choose a trainer of credit's in its place; the same if it is one."""

    @property
    def computes_statistics(self) -> bool:
        """Whether its workers compute statistics."""
        return self.name == self.scoring


def find_v1_mode(base: str, computes_statistics: bool) -> Mode:
    """verl's trainer mode of that name, or credit's that extends it."""
    ours = f"credit_{base}" if base in V1 else "credit_sync"
    option = "trainer.v1.trainer_mode"
    return Mode(f"{option}={ours if computes_statistics else base}", f"{option}={ours}")


def find_source(choice: Choice, config: Any, mode: Mode) -> Source:
    """The source of the statistics that the estimator reads.

    Raises:
        ValueError: these options leave them without one.
    """
    if not choice.statistics:
        return "none"
    exact = choice.divergence == "exact"
    obstacle = _find_obstacle(choice, config, mode) if exact else None
    if exact and obstacle is None:
        _refuse_idle_budget(choice, config.actor_rollout_ref.actor.strategy)
        return "workers"
    beyond = set(choice.statistics) - set(passes.STATISTICS)
    if obstacle and beyond:
        raise ValueError(obstacle + (BINARY if beyond == {"deviation"} else ""))
    _refuse_unless_passes_give(choice, config, mode)
    _refuse_budget(choice, "which reads what verl's own passes give")
    return "passes"


def _refuse_idle_budget(choice: Choice, strategy: str) -> None:
    if strategy not in HIDDEN_STATES:
        _refuse_budget(choice, f"which compares whole logits with strategy={strategy}")


def _refuse_budget(choice: Choice, reason: str) -> None:
    if choice.statistics_memory_mb is not None:
        budget = f"algorithm.credit.statistics_memory_mb={choice.statistics_memory_mb:g}"
        raise ValueError(
            f"{budget} has no effect with {FRAMEWORK.name_of(choice.estimator)}, {reason}; leave it out"
        )


def describe(choice: Choice) -> str:
    """Where statistics come from, for a line of log."""
    if choice.source == "workers":
        return "exact, in the pass for the old log-probs"
    if choice.source != "passes":
        return ""
    sampled = ["log-probs of sampled tokens"] if set(choice.statistics) - set(passes.ENTROPY) else []
    entropy = ["entropy"] if set(choice.statistics) & set(passes.ENTROPY) else []
    return f"from verl's own {' and '.join(sampled + entropy)}"


def runs_reference(choice: Choice, config: Any) -> bool:
    """Whether a model beside the actor has to be loaded for the estimator."""
    return choice.reference and not uses_lora(config.actor_rollout_ref)


def uses_lora(models: Any) -> bool:
    """Whether the actor carries a LoRA adapter, so that the reference is the actor without it."""
    rank = OmegaConf.select(models, "model.lora.rank", default=0) or models.model.get("lora_rank", 0)
    return rank > 0 or models.model.get("lora_adapter_path") is not None


def _refuse_unless_passes_give(choice: Choice, config: Any, mode: Mode) -> None:
    name = FRAMEWORK.name_of(choice.estimator)
    exact = [each for each in choice.statistics if each not in (*passes.STATISTICS, "deviation")]
    if exact:
        raise ValueError(
            f"{name} needs {', '.join(exact)}, which log-probs of sampled tokens do not give; leave "
            "algorithm.credit.divergence=binary out"
        )
    if passes.are_skipped(config) and set(passes.ENTROPY) & set(choice.statistics):
        way_out = ", or +algorithm.credit.kappa=0" if "deviation" in choice.statistics else ""
        raise ValueError(
            "algorithm.rollout_correction.bypass_mode=True skips the pass in which verl computes the entropy "
            f"that {name} needs; set algorithm.rollout_correction.bypass_mode=False{way_out}"
        )
    if choice.reference and not (mode.computes_statistics or need_reference_policy(config)):
        raise ValueError(
            f"{name} needs log-probs of the reference, which {mode.name} does not run; add {mode.scoring}"
        )


def _find_obstacle(choice: Choice, config: Any, mode: Mode) -> str | None:
    """Why no worker computes exact statistics, and the way out; None if one does."""
    name, models = FRAMEWORK.name_of(choice.estimator), config.actor_rollout_ref
    if not mode.computes_statistics:
        return f"{name} needs token statistics, which {mode.name} does not compute; add {mode.scoring}"
    if passes.are_skipped(config):
        return (
            "algorithm.rollout_correction.bypass_mode=True skips the policy's forward pass, in which the "
            f"statistics for {name} are computed; set algorithm.rollout_correction.bypass_mode=False"
        )
    two_models = runs_reference(choice, config)
    if two_models and mode.name.endswith("separate_async") and not models.get("hybrid_engine", True):
        return (
            f"{name} compares policy and reference within one worker, but hybrid_engine=False of "
            "separate_async gives each of them its own; leave actor_rollout_ref.hybrid_engine at True"
        )
    return engines.find_obstacle(name, models, two_models)
