"""SkyRL's trainer with advantages from an estimator; it runs in one process and asks the policy's workers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ray
import torch
from skyrl.train.trainer import RayPPOTrainer

import credit
from credit.adapters import metrics
from credit.adapters.estimator_report import report_estimator
from credit.adapters.fields import LOGGED, measure_logged
from credit.adapters.hooks import check_functions
from credit.adapters.sessions import assign_credit
from credit.adapters.skyrl import answers, collected, extra, hooks, options, rollouts
from credit.adapters.skyrl.hooks import FRAMEWORK
from credit.adapters.skyrl.settings import SECTION, Choice
from credit.several_rewards import find_scored_rows

check_functions(hooks.FRAMEWORK, hooks.TRAINER)

# To a type checker the mixin has the attributes of the trainer that it is listed before.
Trainer: Any = RayPPOTrainer if TYPE_CHECKING else object

Tensor = torch.Tensor


class CreditMixin(Trainer):
    """Takes the advantages of SkyRL's batches from an estimator; list it before one of SkyRL's trainers."""

    def __init__(self, choice: Choice, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        self.credit_choice = choice
        self.credit_statistics: dict[str, Tensor] = {}  # [N, T], of the batch that was scored last
        self._credit_mask: Tensor | None = None  # of the loss, while a batch is scored
        own = [(f"{SECTION}.statistics_memory_mb", choice.statistics_memory_mb, None)]
        report_estimator(
            FRAMEWORK, choice.estimator, own if choice.statistics else (), "from the models' hidden states"
        )
        options.report_differences(choice.estimator, self.cfg)

    # Its arguments are SkyRL's classes of workers, named as there.
    def build_models(self, PolicyWorker: Any, CriticWorker: Any, RefWorker: Any) -> None:  # noqa: N803
        choice = self.credit_choice
        if not choice.statistics:
            super().build_models(PolicyWorker, CriticWorker, RefWorker)
            return
        from credit.adapters.skyrl.statistics import Request
        from credit.adapters.skyrl.worker import choose_worker  # of FSDP, as Megatron's is not

        super().build_models(choose_worker(PolicyWorker), CriticWorker, RefWorker)
        path = self.cfg.trainer.ref.model.path if choice.compares else None
        request = Request(choice.scored, path, choice.statistics_memory_mb)
        ray.get(self.policy_model.async_run_ray_method("pass_through", "prepare_credit", request))

    def convert_to_training_input(self, generator_output: Any, uids: Any) -> Any:
        given = extra.find_rows(self.credit_choice.estimator, generator_output)
        data = super().convert_to_training_input(generator_output, uids)
        data.metadata[extra.KEY] = given
        return data

    def _skip_policy_forward(self, training_input: Any) -> bool:
        """Never where tokens are scored, since that is where they are."""
        return not self.credit_choice.statistics and super()._skip_policy_forward(training_input)

    def fwd_logprobs_values_reward(self, training_input: Any) -> Any:
        with self._scoring(training_input):
            return super().fwd_logprobs_values_reward(training_input)

    @contextmanager
    def _scoring(self, training_input: Any) -> Iterator[None]:
        """Within it the policy's workers get the mask of the loss, and return statistics of its tokens."""
        self._credit_mask = training_input["loss_mask"] if self.credit_choice.statistics else None
        try:
            yield
        finally:
            self._credit_mask = None

    def _execute_forward_pass(
        self, model: str, data_fwd_pass: Any, key: str, mini_batch_boundaries: Any
    ) -> Tensor:
        compute, mask = super()._execute_forward_pass, self._credit_mask
        if model != "policy" or mask is None:
            return compute(model, data_fwd_pass, key, mini_batch_boundaries)
        data_fwd_pass["loss_mask"] = mask
        with collected.outputs(self.dispatch) as calls:
            found = compute(model, data_fwd_pass, key, mini_batch_boundaries)
        names = self.credit_choice.scored
        self.credit_statistics = collected.stack(calls, names, mask, mini_batch_boundaries)
        return found

    @torch.no_grad()
    def compute_advantages_and_returns(self, data: Any) -> Any:
        """SkyRL's, with advantages and returns of the estimator in the place of its own."""
        estimator, batch = self.credit_choice.estimator, rollouts.Batch(data)
        statistics, self.credit_statistics = self.credit_statistics, {}
        progress = (self.global_step - 1) / max(self.total_training_steps or 0, 1)
        given = rollouts.make_rollouts(estimator, batch, statistics, min(progress, 1.0))
        data.metadata.pop(extra.KEY, None)
        last = batch.find_last()
        result = assign_credit(estimator, given, last)
        scored = find_scored_rows(given.rewards)[last]
        self._log_credit(result, batch, statistics, scored)
        returns = estimator.returns(given)
        advantages = batch.pad(result.advantages)
        targets = advantages.clone() if returns is None else batch.pad(returns)
        if not scored.all():
            data["loss_mask"] = data["loss_mask"] * batch.pad(scored[:, None].expand_as(batch.mask))
        with answers.given(self.cfg, data, advantages, targets) as settle:
            data = super().compute_advantages_and_returns(data)
        return settle(self, data)

    def _log_credit(self, result: credit.Credit, batch: Any, statistics: Any, scored: Tensor) -> None:
        """Logs the estimator's metrics, and means of what was computed anyway, as credit/<name>."""
        values = metrics.read_metrics(self.credit_choice.estimator.name, result)
        logged = {name: statistics[name][: batch.count] for name in LOGGED if name in statistics}
        measured = measure_logged(logged, batch.mask & scored[:, None])
        values |= {name: float(value) for name, value in measured.items()}
        self.all_metrics.update({f"credit/{name}": value for name, value in values.items()})


class CreditTrainer(CreditMixin, RayPPOTrainer):
    """SkyRL's trainer with an estimator of credit."""
