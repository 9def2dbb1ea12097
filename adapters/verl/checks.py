"""What is checked when a trainer of verl's is built: the config, before anything is loaded."""

from typing import Any

from omegaconf import DictConfig
from verl.trainer.ppo import core_algos
from verl.utils.import_utils import import_external_libs

from credit.adapters.estimator_report import report_estimator
from credit.adapters.loss_report import Option
from credit.adapters.verl import hooks, misplaced, options, registry, settings, sources


def names_credit(config: Any) -> bool:
    """Whether the config names an estimator of credit; raises ValueError if it only tries to."""
    if not isinstance(config, DictConfig) or "algorithm" not in config:
        return False
    algorithm = config.algorithm
    if settings.is_ours(algorithm.get("adv_estimator")):
        return True
    if settings.is_misnamed(algorithm, core_algos.ADV_ESTIMATOR_REGISTRY):
        _import_users_code(config)  # may define the name
    settings.refuse_misplaced_settings(algorithm, core_algos.ADV_ESTIMATOR_REGISTRY)
    return False


def check_config(config: Any, mode: sources.Mode) -> settings.Choice:
    """The estimator that the config names, and the source of its statistics.

    Raises:
        ValueError: something in the config cannot work with it.
    """
    algorithm = config.algorithm
    _import_users_code(config)  # may define an estimator
    registry.register_estimators()
    if not settings.is_ours(algorithm.adv_estimator):
        settings.refuse_misplaced_settings(algorithm, core_algos.ADV_ESTIMATOR_REGISTRY)
        raise ValueError(
            f"{mode.name} needs an estimator of credit, and algorithm.adv_estimator="
            f"{algorithm.adv_estimator} is not one; set it to one of {settings.list_names()}, or take verl's "
            "own trainer"
        )
    choice = settings.parse_settings(algorithm)
    misplaced.refuse_misplaced(config, choice.estimator)
    options.refuse(choice, config, mode)
    return choice._replace(source=sources.find_source(choice, config, mode))


def report(choice: settings.Choice, config: Any) -> None:
    """Logs the estimator in force with its settings, and loss options that differ from its paper's."""
    own: list[Option] = [("divergence", choice.divergence, "exact")] if choice.reference else []
    if "token_rewards" in choice.estimator.required_fields:
        own.append(("token_rewards", choice.token_rewards, "token_level_rewards"))
    report_estimator(hooks.FRAMEWORK, choice.estimator, own, sources.describe(choice))
    options.report_differences(choice, config)


def _import_users_code(config: Any) -> None:
    import_external_libs(config.actor_rollout_ref.model.get("external_lib"))
