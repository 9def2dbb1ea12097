"""verl's actor workers, whose log-prob pass can return token statistics as well."""

from typing import TYPE_CHECKING, Any

from verl.experimental.separation.engine_workers import DetachActorWorker
from verl.single_controller.base.decorator import Dispatch, make_nd_compute_dataproto_dispatch_fn, register
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import ActorRolloutRefWorker

from credit.adapters.hooks import check_functions
from credit.adapters.verl import hooks, statistics

check_functions(hooks.FRAMEWORK, hooks.WORKER)

REQUEST = "credit_statistics"  # key of the names of statistics, separated by blanks
MEMORY = "credit_statistics_memory_mb"  # key of the megabytes for tiles of logits

# To a type checker the mixin has the attributes of the worker that it is listed before.
Worker: Any = ActorRolloutRefWorker if TYPE_CHECKING else object


class StatisticsMixin(Worker):
    """Adds the statistics named under `credit_statistics` to a worker's log-probs."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        """verl's, and an error now, not after a rollout, if these models have no way to statistics."""
        super().init_model()
        if self.actor is not None:  # not the worker of a reference of its own
            statistics.refuse_without_logits(self.actor, self.ref)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def compute_log_prob(self, data: Any) -> Any:
        """verl's result, with a nested credit_<name> [N, prompt + response] for each requested statistic."""
        fields = tu.pop(data, key=REQUEST, default="").split()
        memory_mb = tu.pop(data, key=MEMORY, default=None)
        if not fields:
            return super().compute_log_prob(data)
        with statistics.collect_statistics(self.actor, self.ref, data, fields, memory_mb):
            return super().compute_log_prob(data)


class CreditWorker(StatisticsMixin, ActorRolloutRefWorker):
    """The worker of verl's trainers that sample where they train."""


class CreditDetachWorker(StatisticsMixin, DetachActorWorker):
    """The worker of separate_async, which can put its weights aside and take them back."""
