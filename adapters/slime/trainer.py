"""The functions that slime calls: before a pass of its models, for advantages, and when it starts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from megatron.core import parallel_state

import credit
from credit.adapters.early_deviation import describe_early_deviation
from credit.adapters.estimator_report import logger, report_estimator
from credit.adapters.fields import measure_logged
from credit.adapters.hooks import check_framework
from credit.adapters.metrics import read_metrics
from credit.adapters.sessions import assign_credit
from credit.adapters.slime import options, rollouts, sources
from credit.adapters.slime.hooks import FRAMEWORK, FUNCTIONS
from credit.adapters.slime.records import write_records
from credit.adapters.slime.settings import AdapterSettings, refuse_missing_options
from credit.adapters.slime.statistics import Scorer
from credit.several_rewards import find_scored_rows

check_framework(FRAMEWORK, FUNCTIONS)

Tensor = torch.Tensor


class Trainer:
    """What credit does in one of slime's training processes, from its first call to the last."""

    def __init__(self, args: Any, estimator: credit.Estimator, settings: AdapterSettings) -> None:
        refuse_missing_options(args)
        options.refuse(estimator, args)
        options.refuse_records(settings, args)
        self.estimator, self.settings = estimator, settings
        self.rollouts = 0  # how many batches this process has seen
        names = sources.list_scored(estimator, args)
        self.scorer = Scorer(names, settings.statistics_memory_mb) if names else None
        if _is_main_process():
            report_estimator(FRAMEWORK, estimator, source=sources.describe(estimator, args))
            options.report_differences(estimator, args)

    def before_log_prob(self, args: Any, model: Sequence[Any], prefix: str) -> None:
        """Listens to the pass that begins, if the estimator reads what it has."""
        if self.scorer is not None:
            self.scorer.begin(args, model, prefix)

    def assign_advantages(self, args: Any, data: dict[str, Any]) -> None:
        """Sets the advantages of this rank's samples, and metrics that slime logs; on the last stage."""
        scored = [] if self.scorer is None else self.scorer.finish()
        steps = self.settings.record_steps
        records = steps is not None and self.rollouts % steps == 0
        whole = rollouts.gather(args, data, self.estimator, scored, self._progress(args), records)
        result = assign_credit(self.estimator, whole.rollouts, whole.last)
        advantages = rollouts.spread(data, whole.places, result.advantages)
        _refuse_other_lengths(data, advantages)
        _leave_out_unscored(data, whole)
        data["advantages"], data["returns"] = advantages, list(advantages)
        self._log(data, whole, result)
        if self.rollouts == 0 and whole.rollouts.progress == 0:
            _warn_of_another_reference(whole.rollouts)
        if records and _is_main_process():
            step = (args.start_rollout_id or 0) + self.rollouts
            write_records(args, self.estimator, self.settings, whole, result, step)
        self.rollouts += 1

    def _progress(self, args: Any) -> float | None:
        """How far the training is, from 0 to 1; None: this process does not know.

        With --release-train slime starts the processes anew for each rollout, always with the same arguments.
        """
        if args.release_train or args.start_rollout_id is None or not args.num_rollout:
            return None
        return min((args.start_rollout_id + self.rollouts) / args.num_rollout, 1.0)

    def _log(self, data: dict[str, Any], whole: rollouts.Whole, result: credit.Credit) -> None:
        """Puts the metrics beside slime's fields, whose means it logs as rollout/<name>."""
        values = read_metrics(self.estimator.name, result)
        values["invalid_rows"] = float((~find_scored_rows(whole.rollouts.rewards)).sum())
        extra = {f"extra.{name}": array for name, array in (whole.rollouts.extra or {}).items()}
        values |= {name: float(value) for name, value in measure_logged(extra, whole.rollouts.mask).items()}
        for name, value in values.items():
            data[f"credit/{name}"] = torch.tensor(value)


def _refuse_other_lengths(data: Mapping[str, Any], advantages: Sequence[Tensor]) -> None:
    """slime has made an array for each of its samples already, of the tokens that this rank has of it."""
    expected, found = [len(each) for each in data["kl"]], [len(each) for each in advantages]
    if found != expected:
        raise RuntimeError(
            f"credit has advantages for {found} tokens of this rank's samples, and slime expects {expected}; "
            "this release of slime lays them out in another way"
        )


def _leave_out_unscored(data: dict[str, Any], whole: rollouts.Whole) -> None:
    """Takes samples without a finite reward out of the loss; slime's log adds rewards up, but not None."""
    for name in ("rewards", "raw_reward", "local_raw_reward"):
        if name in data:
            data[name] = [math.nan if reward is None else reward for reward in data[name]]
    scored = find_scored_rows(whole.rollouts.rewards)
    data["loss_masks"] = [
        mask if scored[place] else torch.zeros_like(mask)
        for mask, place in zip(data["loss_masks"], whole.places, strict=True)
    ]


def _warn_of_another_reference(given: credit.Rollouts) -> None:
    found = describe_early_deviation(given) if _is_main_process() else None
    if found is not None:
        logger.warning(
            "%s: --ref-load is another model than the one that training begins with. If that is not meant, "
            "load the same checkpoint as both",
            found,
        )


def _is_main_process() -> bool:
    """Whether this process logs for the last stage of the pipeline, as slime's main process does."""
    ranks = (
        parallel_state.get_data_parallel_rank(with_context_parallel=True),
        parallel_state.get_tensor_model_parallel_rank(),
    )
    return ranks == (0, 0) and parallel_state.is_pipeline_last_stage()
