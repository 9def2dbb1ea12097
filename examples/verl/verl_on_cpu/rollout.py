"""A rollout backend of verl's, hf_cpu: one Hugging Face model per replica in a Ray actor."""

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import ray
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl.workers.rollout import base
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput
from verl.workers.rollout.utils import ensure_async_iterator


class Server:
    """Samples one response per request and takes new weights between steps."""

    def __init__(self, path: str, response_length: int, seed: int) -> None:
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self.end = AutoTokenizer.from_pretrained(path).eos_token_id
        self.response_length = response_length
        self.steps = 0

    async def generate(
        self, request_id: str, prompt_ids: list[int], sampling_params: dict[str, Any], **_: Any
    ) -> TokenOutput:
        """The sampled tokens and, if asked for, their log-probs."""
        ids, log_probs = self._sample(list(prompt_ids), sampling_params)
        return TokenOutput(
            token_ids=ids,
            log_probs=log_probs if sampling_params.get("logprobs") else None,
            stop_reason="completed",
            num_preempted=0,
            extra_fields={"global_steps": self.steps},
        )

    @torch.no_grad()
    def _sample(self, prompt: list[int], sampling_params: dict[str, Any]) -> tuple[list[int], list[float]]:
        temperature = float(sampling_params.get("temperature", 1.0))
        limit = int(sampling_params.get("max_tokens") or self.response_length)
        inputs, cache, ids, log_probs = torch.tensor([prompt]), None, [], []
        while len(ids) < limit and self.end not in ids[-1:]:
            output = self.model(inputs, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            scores = (output.logits[0, -1] / (temperature or 1.0)).log_softmax(-1)
            token = scores.argmax() if temperature == 0 else torch.multinomial(scores.exp(), 1)[0]
            ids.append(int(token))
            log_probs.append(float(scores[token]))
            inputs = token.reshape(1, 1)
        return ids, log_probs

    async def load_weights(self, weights: dict[str, torch.Tensor], steps: int | None) -> None:
        """The trainer's weights, all of which have to be known."""
        unknown = set(weights) - set(self.model.state_dict())
        if unknown:
            raise ValueError(f"the rollout model has no weight {sorted(unknown)[0]!r}")
        self.model.load_state_dict(weights, strict=False)  # tied weights come once
        self.steps = steps or 0

    async def nothing(self, *_: Any, **__: Any) -> None:
        """There is no memory to hand over between trainer and rollout, nor a cache to clear."""

    sleep = wake_up = abort_all_requests = resume_generation = nothing
    clear_kv_cache = release_kv_cache = resume_kv_cache = start_profile = stop_profile = nothing


class Replica(RolloutReplica):
    """Starts the server."""

    async def launch_servers(self) -> None:
        name = server_name(self.replica_rank)
        self._server_handle = (
            ray.remote(num_cpus=0)(Server)
            .options(name=name)
            .remote(self.model_config.path, self.config.response_length, self.config.seed + self.replica_rank)
        )
        self.servers = [self._server_handle]
        self._server_address = name


class ServerAdapter(base.BaseRollout):
    """The trainer's side: sends weights."""

    sleep_level = 2

    def __init__(self, *positional: Any, replica_rank: int | None = None, **named: Any) -> None:
        super().__init__(*positional, **named)
        self.replica_rank = replica_rank  # of a server with GPUs of its own

    async def resume(self, tags: list[str]) -> None:
        """Nothing is put to sleep."""

    async def release(self) -> None:
        """Nothing is held."""

    async def update_weights(
        self, weights: Iterator | AsyncIterator, wire_format: str = "named_tensors", **named: Any
    ) -> None:
        # Every rank has to drain the generator: gathering a shard is collective.
        whole = {
            name: tensor.detach().float().cpu().clone()
            async for name, tensor in ensure_async_iterator(weights)
        }
        replica, rest = divmod(int(os.environ["RANK"]), self.config.tensor_model_parallel_size)
        if self.replica_rank is not None:
            replica = self.replica_rank
        if rest == 0:
            server = ray.get_actor(server_name(replica))
            await server.load_weights.remote(whole, named.get("global_steps"))


def server_name(replica: int) -> str:
    """The Ray actor's name."""
    return f"hf_cpu_{replica}"


RolloutReplicaRegistry.register("hf_cpu", lambda: Replica)
base._ROLLOUT_REGISTRY[("hf_cpu", "async")] = "verl_on_cpu.rollout.ServerAdapter"
