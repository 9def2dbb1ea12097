"""What every Ray worker runs at its start: OpenRLHF's classes are extended once they are defined.

Nothing of OpenRLHF is imported here, so that vLLM's workers stay free of it.
"""

from importlib import import_module
from types import ModuleType

from credit.adapters.openrlhf import plugins
from credit.adapters.post_import import call_after_import, has_action

# Each module of OpenRLHF, its class, and the module and class of credit's that take its place. Assigning
# to them in the driver would change nothing, since Ray's workers import OpenRLHF anew.
THEIRS = "openrlhf.trainer.ppo_utils."
RAY = "openrlhf.trainer.ray."
REPLACED = {
    THEIRS + "experience_maker": ("RemoteExperienceMaker", "trainer", "CreditExperienceMaker"),
    THEIRS + "samples_generator": ("SamplesGenerator", "sampling", "CreditSamplesGenerator"),
    RAY + "ppo_actor": ("ActorPPOTrainer", "policy_training", "CreditActorPPOTrainer"),
    RAY + "ppo_critic": ("CriticPPOTrainer", "critic_training", "CreditCriticPPOTrainer"),
}
AGENTS = "openrlhf.utils.agent"
TRAINER = "openrlhf.trainer.ppo_trainer"


def install_import_hook() -> None:
    """The target of Ray's worker_process_setup_hook."""
    for name in REPLACED:
        call_after_import(name, replace_class)
    call_after_import(AGENTS, keep_rewards_of_steps)
    call_after_import(TRAINER, announce_steps)
    plugins.find_files()


def is_installed() -> bool:
    """Whether this process replaces OpenRLHF's classes."""
    return all(map(has_action, (*REPLACED, AGENTS, TRAINER)))


def replace_class(module: ModuleType) -> None:
    """Puts credit's subclass in place of the module's class."""
    theirs, place, ours = REPLACED[module.__name__]
    setattr(module, theirs, getattr(import_module(f"credit.adapters.openrlhf.{place}"), ours))


def keep_rewards_of_steps(module: ModuleType) -> None:
    """Makes OpenRLHF's multi-turn executor give what each step earns."""
    import_module("credit.adapters.openrlhf.agents").keep_rewards_of_steps(module)


def announce_steps(module: ModuleType) -> None:
    """Makes OpenRLHF's trainer tell the experience maker of its steps."""
    import_module("credit.adapters.openrlhf.steps").announce_steps(module)
