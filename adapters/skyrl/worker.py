"""SkyRL's policy worker for FSDP, whose pass for the old log-probs can return token statistics as well."""

from typing import Any

import ray
import torch
from skyrl.backends.skyrl_train.distributed.dispatch import WorkerOutput
from skyrl.backends.skyrl_train.training_batch import TrainingOutputBatch
from skyrl.backends.skyrl_train.workers.fsdp.fsdp_worker import FSDPPolicyWorkerBase, PolicyWorker
from skyrl.backends.skyrl_train.workers.worker_utils import get_microbatch_iterator

from credit.adapters.heads import find_base, find_head
from credit.adapters.hooks import check_functions
from credit.adapters.skyrl import hooks, statistics
from credit.adapters.skyrl.reference import AdapterOff, Frozen, make_reference
from credit.adapters.skyrl.statistics import Request

check_functions(hooks.FRAMEWORK, hooks.WORKER)

KEY = "credit_"  # precedes the name of a statistic in a worker's output
MASK = "loss_mask"

Tensor = torch.Tensor


class CreditPolicyWorkerBase(FSDPPolicyWorkerBase):
    """FSDPPolicyWorkerBase that scores tokens against a reference of its own, once it is asked to.

    The reference sees each micro-batch right after the policy, in the same layout, so that equal models
    deviate by exactly 0.
    """

    credit_request: Request | None = None
    credit_reference: AdapterOff | Frozen | None = None

    def prepare_credit(self, request: Request) -> None:
        """Loads what the requested statistics need; an error now, not after a rollout, if that cannot be."""
        find_head(find_base(self.model.model))
        if request.reference is not None:
            self.credit_reference = make_reference(self, request.reference)
            if self.cfg.placement.colocate_all:  # where SkyRL has put the policy, too
                self.credit_reference.rest()
        self.credit_request = request
        self._credit_found: list[TrainingOutputBatch] = []

    def forward(self, data: Any, *positional: Any, **named: Any) -> WorkerOutput:
        """SkyRL's, with an array per row under credit_<name> for each requested statistic."""
        if self.credit_request is None or MASK not in data:
            return super().forward(data, *positional, **named)
        self._credit_found = []
        output = super().forward(data, *positional, **named)
        # SkyRL distributes the rows over micro-batches by their lengths, each time in the same way.
        batches = get_microbatch_iterator(
            data,
            micro_batch_size=self.cfg.micro_forward_batch_size_per_gpu,
            max_tokens_per_microbatch=self.cfg.max_tokens_per_microbatch,
        )
        whole = batches.reorder_and_combine_batches(self._credit_found)
        self._credit_found = []
        for row, each in enumerate(output.loss_fn_outputs):
            each |= {name: array[row].numpy() for name, array in whole.items()}
        return output

    def _forward_micro_batch(self, micro_batch: Any) -> TrainingOutputBatch:
        request = self.credit_request
        if request is None or MASK not in micro_batch:
            return super()._forward_micro_batch(micro_batch)
        mask = (micro_batch[MASK] > 0).cpu()
        with statistics.captured(self.model.model) as policy:
            output = super()._forward_micro_batch(micro_batch)
        found = statistics.score(self, request, micro_batch, mask, policy, output["output"])
        kept = TrainingOutputBatch({KEY + name: values for name, values in found.items()})
        kept.metadata = micro_batch.metadata
        self._credit_found.append(kept)
        return output

    def forward_backward(self, *positional: Any, **named: Any) -> WorkerOutput:
        """SkyRL's; where it shares the GPU with all other models, without the reference on it."""
        if self.cfg.placement.colocate_all:
            self._rest_reference()
        return super().forward_backward(*positional, **named)

    def offload_to_cpu(self, offload_optimizer: bool = True, offload_model: bool = True) -> None:
        super().offload_to_cpu(offload_optimizer=offload_optimizer, offload_model=offload_model)
        if offload_model:
            self._rest_reference()

    def _rest_reference(self) -> None:
        if self.credit_reference is not None:
            self.credit_reference.rest()


CreditPolicyWorker = ray.remote(num_gpus=1)(CreditPolicyWorkerBase)


def choose_worker(given: Any) -> Any:
    """The actor class of the policy's workers in the place of the one that an experiment builds them of.

    Raises:
        ValueError: it is a class of the user's own, which returns no statistics.
    """
    if given is PolicyWorker:
        return CreditPolicyWorker
    kind = given.__ray_metadata__.modified_class
    if not issubclass(kind, CreditPolicyWorkerBase):
        raise ValueError(
            f"the experiment builds the policy of {kind.__name__}, which computes no token statistics; "
            "derive it from credit.adapters.skyrl.worker.CreditPolicyWorkerBase"
        )
    return given
