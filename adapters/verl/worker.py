"""verl's actor worker, whose log-prob pass can return token statistics as well."""

from typing import Any

from verl.single_controller.base.decorator import make_nd_compute_dataproto_dispatch_fn, register
from verl.utils import tensordict_utils as tu
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from credit.adapters import hooks
from credit.adapters.verl import statistics

hooks.check_signature("verl", ActorRolloutRefWorker, "compute_log_prob", "self", "data")
hooks.check_signature("verl", TrainingWorker, "set_loss_fn", "self", "loss_fn")
hooks.check_signature(
    "verl", FSDPEngineWithLMHead, "forward_step", "self", "micro_batch", "loss_function", "forward_only"
)
hooks.check_signature("verl", FSDPEngineWithLMHead, "prepare_model_inputs", "self", "micro_batch")

REQUEST = "credit_statistics"  # names of statistics, separated by blanks


class CreditWorker(ActorRolloutRefWorker):
    """ActorRolloutRefWorker that adds the statistics named under `credit_statistics` to its log-probs."""

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def compute_log_prob(self, data: Any) -> Any:
        """As verl's, with credit_<name> [N, prompt + response], nested, for every requested statistic."""
        fields = tu.pop(data, key=REQUEST, default="").split()
        if not fields:
            return super().compute_log_prob(data)
        tu.assign_non_tensor(data, distillation_use_topk=True, compute_loss=True)
        with statistics.collect_statistics(self.actor, self.ref, fields):
            return super().compute_log_prob(data)
