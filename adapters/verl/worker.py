"""verl's actor worker, whose log-prob pass can return token statistics as well."""

from typing import Any

from verl.single_controller.base.decorator import Dispatch, make_nd_compute_dataproto_dispatch_fn, register
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import ActorRolloutRefWorker

from credit.adapters.hooks import check_functions
from credit.adapters.memory import BUDGET_MB
from credit.adapters.verl import hooks, statistics

check_functions(hooks.FRAMEWORK, hooks.WORKER)

REQUEST = "credit_statistics"  # key of the names of statistics, separated by blanks
MEMORY = "credit_statistics_memory_mb"  # key of the megabytes for tiles of logits


class CreditWorker(ActorRolloutRefWorker):
    """ActorRolloutRefWorker that adds the statistics named under `credit_statistics` to its log-probs."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        """verl's, and an error now, not after a rollout, if these models have no way to statistics."""
        super().init_model()
        statistics.refuse_without_logits(self.actor, self.ref)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def compute_log_prob(self, data: Any) -> Any:
        """verl's result, with a nested credit_<name> [N, prompt + response] for each requested statistic."""
        fields = tu.pop(data, key=REQUEST, default="").split()
        memory_mb = tu.pop(data, key=MEMORY, default=BUDGET_MB)
        if not fields:
            return super().compute_log_prob(data)
        with statistics.collect_statistics(self.actor, self.ref, data, fields, memory_mb):
            return super().compute_log_prob(data)
