"""The functions that slime's options name, as one object per estimator."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import credit
from credit.adapters.slime.settings import AdapterSettings, read_estimator, read_own, refuse_two_choices

if TYPE_CHECKING:
    from credit.adapters.slime.trainer import Trainer


class Hooks:
    """The functions that slime's options name, for an estimator of your own making.

        # my_run.py, on the PYTHONPATH of every process of slime's
        hooks = Hooks(credit.DGPO(tau=0.05))
        advantages, before_log_prob, check = hooks.advantages, hooks.before_log_prob, hooks.check

    `--custom-advantage-function-path my_run.advantages` and so on name them.

    Args:
        estimator: an estimator, its name, or a mapping such as {"name": "dgpo", "tau": 0.05}; None: slime's
            arguments name it, with `credit` in the file of --custom-config-path.
        settings: of `AdapterSettings`, such as record_steps.

    Raises:
        ValueError: a wrong name or setting.
    """

    def __init__(
        self, estimator: credit.Estimator | str | Mapping[str, Any] | None = None, **settings: Any
    ) -> None:
        if estimator is None and settings:
            raise ValueError(
                f"{', '.join(settings)} stand in `credit` of --custom-config-path without an estimator"
            )
        self._estimator = None if estimator is None else credit.parse(estimator)
        self._settings = AdapterSettings(**settings)
        self._trainer: Trainer | None = None  # of this process

    def check(self, args: Any) -> None:
        """For --custom-megatron-init-path: refuses what cannot work before a model is loaded."""
        self._find_trainer(args)

    def before_log_prob(self, args: Any, model: Sequence[Any], store_prefix: str) -> None:
        """For --custom-megatron-before-log-prob-hook-path: statistics from the models' hidden states."""
        self._find_trainer(args).before_log_prob(args, model, store_prefix)

    def advantages(self, args: Any, rollout_data: dict[str, Any]) -> None:
        """For --custom-advantage-function-path: sets the advantages of this rank's samples."""
        self._find_trainer(args).assign_advantages(args, rollout_data)

    def keep_group(self, args: Any, samples: Sequence[Any], **_: Any) -> Any:
        """For --dynamic-sampling-filter-path: whether the estimator trains on the samples of a prompt."""
        from credit.adapters.slime.sampling import keep_group

        return keep_group(args, self._read(args), samples)

    def _find_trainer(self, args: Any) -> "Trainer":
        if self._trainer is None:
            from credit.adapters.slime.trainer import Trainer  # which needs Megatron

            estimator = self._read(args)
            settings = read_own(args) if self._estimator is None else self._settings
            self._trainer = Trainer(args, estimator, settings)
        return self._trainer

    def _read(self, args: Any) -> credit.Estimator:
        if self._estimator is None:
            return read_estimator(args)
        refuse_two_choices(args)
        return self._estimator
