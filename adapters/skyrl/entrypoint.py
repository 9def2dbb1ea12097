"""SkyRL's command with our estimators: the config is checked first, then SkyRL's own experiment runs."""

import sys
from collections.abc import Sequence
from typing import Any

import ray
from skyrl.backends.skyrl_train.utils.ppo_utils import AdvantageEstimatorRegistry
from skyrl.train.entrypoints import main_base
from skyrl.train.entrypoints.main_base import BasePPOExp

from credit.adapters.estimator_report import logger
from credit.adapters.hooks import check_functions
from credit.adapters.skyrl import answers, hooks, options, registry, settings
from credit.adapters.skyrl.config import CreditTrainConfig
from credit.adapters.skyrl.settings import Choice

check_functions(hooks.FRAMEWORK, hooks.ENTRYPOINT)

OVERRIDE = "trainer.override_entrypoint="


class CreditExperiment(BasePPOExp):
    """SkyRL's experiment, whose trainer asks an estimator for the advantages."""

    def __init__(self, cfg: Any, choice: Choice) -> None:
        super().__init__(cfg)
        self.credit_choice = choice

    def get_trainer(self, *positional: Any, **named: Any) -> Any:
        from credit.adapters.skyrl.trainer import CreditTrainer

        return CreditTrainer(self.credit_choice, *positional, **named)


@ray.remote(num_cpus=1)
def run_experiment(kind: type[CreditExperiment], cfg: Any, choice: Choice) -> None:
    """The training, which SkyRL keeps off the head node."""
    kind(cfg, choice).run()


def check_config(arguments: Sequence[str]) -> tuple[CreditTrainConfig, Choice | None]:
    """SkyRL's config with what it names of credit; None if that is nothing.

    Raises:
        ValueError: settings in the wrong place, a wrong name or setting, or options that cannot work with it.
    """
    cfg = CreditTrainConfig.from_cli_overrides(list(arguments))
    name = str(cfg.trainer.algorithm.advantage_estimator)
    if not settings.is_ours(name):
        AdvantageEstimatorRegistry.repopulate_registry()
        if settings.is_misnamed(name, AdvantageEstimatorRegistry.list_available()):
            raise settings.misnamed_error(name)
        settings.refuse_misplaced(cfg.trainer.algorithm)
        return cfg, None
    choice = settings.parse_settings(cfg.trainer.algorithm)
    options.refuse(choice, cfg)
    return cfg, choice


def main(kind: type[CreditExperiment] = CreditExperiment, arguments: Sequence[str] | None = None) -> None:
    """Trains as SkyRL's command does; without an estimator of credit it is SkyRL's command.

    Args:
        kind: an experiment of your own, such as one with another generator.
        arguments: SkyRL's options; those of the command line by default.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    cfg, choice = check_config(given)
    if choice is None:
        _refuse_other_experiment(kind, cfg)
        logger.warning(
            "%s=%s is SkyRL's own, so that nothing of credit is used; its estimators begin with %s",
            settings.OPTION,
            cfg.trainer.algorithm.advantage_estimator,
            settings.PREFIX,
        )
        sys.argv[1:] = [each for each in given if not each.startswith(OVERRIDE)]
        main_base.main()
        return
    registry.add(str(cfg.trainer.algorithm.advantage_estimator), answers.answer)
    main_base.validate_cfg(cfg)
    main_base.initialize_ray(cfg)
    ray.get(run_experiment.remote(kind, cfg, choice))


def _refuse_other_experiment(kind: type[CreditExperiment], cfg: Any) -> None:
    """Raises ValueError for an experiment of the user's own, which SkyRL's own command would not run."""
    if kind is not CreditExperiment:
        name = cfg.trainer.algorithm.advantage_estimator
        raise ValueError(
            f"{kind.__name__} runs with an estimator of credit, and {settings.OPTION}={name} is SkyRL's; "
            f"name one such as {settings.PREFIX}grpo, or start an experiment that is no subclass of credit's"
        )
