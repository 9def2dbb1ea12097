"""One rank that sends a policy with LoRA to a stand-in engine, which writes down what it got."""

import openrlhf_ranks
import torch
from deepspeed.runtime.zero import GatheredParameters
from openrlhf.trainer.ray import ppo_actor
from transformers import AutoModelForCausalLM
from vllm.weights import load_weights

from credit.adapters.openrlhf import lora

COPIES = 20_000  # bytes, so that there are several batches


class Engine:
    """Takes weights as OpenRLHF's WorkerWrap and vLLM do."""

    def __init__(self, path, group):
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
        self.group, self.names = group, []

    def update_weight(self, name, dtype, shape, empty_cache):
        # The broadcast that it waits for is called after it.
        return lambda: self._load(name, dtype, shape, self.group.sent.pop())

    def update_weight_cuda_ipc(self, name, dtype, shape, ipc_handles, empty_cache):
        rebuild, (*arguments, _, _) = ipc_handles[torch.distributed.get_rank()]
        other, device = -1, 0  # in a run the engine is another process, as whoever opens a handle has to be
        return lambda: self._load(name, dtype, shape, rebuild(*arguments, other, device))

    def _load(self, name, dtype, shape, weight):
        assert dtype == weight.dtype == torch.bfloat16, name
        assert tuple(shape) == tuple(weight.shape), name
        load_weights(self.model, [(name, weight)])
        self.names.append(name)


class Group:
    """What stands between the ranks and the engine."""

    def __init__(self):
        self.sent = []

    def broadcast(self, tensor, src, stream):
        self.sent.append(tensor.clone())


class Remote:
    """A handle of Ray's whose calls are done at `get`."""

    def __init__(self, engine):
        self.engine = engine

    def __getattr__(self, name):
        call = getattr(self.engine, name)
        return type("Method", (), {"remote": staticmethod(call)})


def weights(policy, partitioned):
    parameters = list(policy.model.module.parameters())
    with GatheredParameters(parameters, enabled=partitioned):
        return {name: p.detach().clone() for name, p in policy.model.module.named_parameters()}


def main():
    given = openrlhf_ranks.parser().parse_args()
    strategy = openrlhf_ranks.start(given)
    policy = openrlhf_ranks.load(
        strategy, given.model, train=True, lora_rank=4, lora_alpha=16, target_modules="all-linear"
    )
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:  # which starts at 0
            torch.manual_seed(len(name))
            torch.nn.init.normal_(parameter, std=0.05)
    policy, *_ = strategy.prepare((policy, openrlhf_ranks.TRAINING))
    partitioned = given.zero_stage == 3
    before = weights(policy, partitioned)

    lora.COPIES = COPIES
    got = {way: broadcast(given.model, strategy, policy, way == "ipc") for way in ("group", "ipc")}
    after = weights(policy, partitioned)
    assert all(torch.equal(before[name], after[name]) for name in before)
    if torch.distributed.get_rank() == 0:
        torch.save(got | {"policy": after}, given.out)


def broadcast(path, strategy, policy, ipc):
    """The names that the engine got, one by one, and its weights after them."""
    group = Group()
    engine = Engine(path, group)
    trainer = ppo_actor.ActorPPOTrainer.__new__(ppo_actor.ActorPPOTrainer)
    trainer.strategy, trainer.actor, trainer.use_cuda_ipc = strategy, policy, ipc
    trainer.vllm_engines, trainer._model_update_group = [Remote(engine)], group
    ppo_actor.ray.get = lambda calls: [call() for call in calls]
    ppo_actor.get_physical_gpu_id = torch.distributed.get_rank
    lora.broadcast_merged(trainer)
    assert trainer.actor is policy
    return engine.names, engine.model.state_dict()


if __name__ == "__main__":
    main()
