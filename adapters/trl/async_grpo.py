"""TRL's asynchronous GRPO trainer, with advantages from an estimator that reads rewards alone."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from trl.experimental.async_grpo import AsyncGRPOConfig, AsyncGRPOTrainer

import credit
from credit.adapters.estimator_report import report_estimator
from credit.adapters.hooks import check_functions, check_version
from credit.adapters.trl import async_options
from credit.adapters.trl.async_scoring import make_loop
from credit.adapters.trl.hooks import ASYNC_FRAMEWORK, ASYNC_FUNCTIONS, FRAMEWORK
from credit.adapters.trl.settings import CreditGRPOConfig, read_estimator

check_version(ASYNC_FRAMEWORK)
check_functions(ASYNC_FRAMEWORK, ASYNC_FUNCTIONS)


@dataclass
class CreditAsyncGRPOConfig(AsyncGRPOConfig):
    """AsyncGRPOConfig with the estimator, from Python, YAML or the command line.

    An unknown name or a wrong setting raises ValueError here, before any model is loaded.
    """

    _VALID_DICT_FIELDS = [*AsyncGRPOConfig._VALID_DICT_FIELDS, "advantage_estimator_kwargs"]

    advantage_estimator: str | None = field(
        default=None, metadata=dict(CreditGRPOConfig.__dataclass_fields__["advantage_estimator"].metadata)
    )
    advantage_estimator_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Settings of the estimator, such as `{correction: 0, eps: 1.0e-8}` in YAML."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        read_estimator(self)


class CreditAsyncGRPOTrainer(AsyncGRPOTrainer):
    """AsyncGRPOTrainer with the estimators of credit that read rewards alone; see `CreditAsyncGRPOConfig`.

    The advantages are computed where TRL computes its own: in the process that scores a prompt's completions.
    Without `advantage_estimator` TRL's path is untouched.
    """

    _tag_names = [*AsyncGRPOTrainer._tag_names, "credit"]

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: Any = None,
        *positional: Any,
        rollout_worker: Any = None,
        **named: Any,
    ) -> None:
        self.credit_estimator: credit.Estimator | None = read_estimator(args)
        if self.credit_estimator is not None:
            async_options.refuse(self.credit_estimator, args, rollout_worker)
        super().__init__(model, reward_funcs, args, *positional, rollout_worker=rollout_worker, **named)
        if self.credit_estimator is not None and self.accelerator.is_main_process:
            worker = self.rollout_worker
            worker._loop_cls = partial(make_loop, worker._loop_cls, self.credit_estimator)
            report_estimator(FRAMEWORK, self.credit_estimator)
            async_options.report_differences(self.credit_estimator, self.args)
