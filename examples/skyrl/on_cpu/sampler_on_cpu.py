"""A stand-in for vLLM: one Hugging Face model in a Ray actor, which takes the policy's weights."""

from collections.abc import Iterable
from typing import Any

import ray
import torch
from peft import PeftModel
from skyrl.backends.skyrl_train.inference_servers.base import InferenceEngineInterface, InferenceEngineOutput
from skyrl.backends.skyrl_train.weight_sync import WeightTransferSender, WeightTransferStrategy
from transformers import AutoModelForCausalLM, AutoTokenizer

Tensor = torch.Tensor
Weights = dict[str, Tensor]


class Server:
    """Samples one response per prompt and takes new weights, or a LoRA adapter, between steps."""

    def __init__(self, path: str, seed: int) -> None:
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        self.model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(path)

    def generate(self, prompts: list[list[int]], sampling_params: dict[str, Any]) -> InferenceEngineOutput:
        """As vLLM answers: tokens, texts, why each ended, and log-probs if they are asked for."""
        sampled = [self._sample(prompt, sampling_params) for prompt in prompts]
        ids, log_probs, reasons = (list(each) for each in zip(*sampled, strict=True))
        return InferenceEngineOutput(
            responses=self.tokenizer.batch_decode(ids, skip_special_tokens=True),
            response_ids=ids,
            stop_reasons=reasons,
            response_logprobs=log_probs if sampling_params.get("logprobs") is not None else None,
            prompt_logprobs=None,
            rollout_expert_indices=None,
        )

    @torch.no_grad()
    def _sample(self, prompt: list[int], sampling_params: dict[str, Any]) -> tuple[list, list, str]:
        temperature, limit = float(sampling_params["temperature"]), int(sampling_params["max_tokens"])
        inputs, cache, ids, log_probs, end = torch.tensor([prompt]), None, [], [], self.tokenizer.eos_token_id
        while len(ids) < limit and end not in ids[-1:]:
            output = self.model(inputs, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            scores = (output.logits[0, -1] / (temperature or 1.0)).log_softmax(-1)
            token = scores.argmax() if temperature == 0 else torch.multinomial(scores.exp(), 1)[0]
            ids.append(int(token))
            log_probs.append(float(scores[token]))
            inputs = token.reshape(1, 1)
        return ids, log_probs, "stop" if end in ids[-1:] else "length"

    def load_weights(self, weights: Weights) -> None:
        """The policy's weights, all of which have to be known."""
        unknown = set(weights) - set(self.model.state_dict())
        if unknown:
            raise ValueError(f"the sampling model has no weight {sorted(unknown)[0]!r}")
        self.model.load_state_dict(weights, strict=False)  # tied weights come once

    def load_adapter(self, path: str) -> None:
        """The policy's adapter, from the folder in which SkyRL saved it."""
        if isinstance(self.model, PeftModel):
            self.model = self.model.unload()
        self.model = PeftModel.from_pretrained(self.model, path).eval()


class Client(InferenceEngineInterface):
    """SkyRL's side of the server."""

    def __init__(self, path: str, seed: int = 0) -> None:
        self.path, self.weight_version = path, 0
        self.server = ray.remote(num_cpus=0)(Server).remote(path, seed)

    @property
    def model_name(self) -> str:
        return self.path

    async def generate(self, input_batch: Any, model: str | None = None) -> InferenceEngineOutput:
        given = input_batch["prompt_token_ids"], input_batch["sampling_params"]
        return await self.server.generate.remote(*given)

    def get_endpoint_url(self) -> str:
        raise NotImplementedError("the stand-in for vLLM serves no HTTP")

    async def chat_completion(self, request_payload: Any) -> Any:
        raise NotImplementedError("the stand-in for vLLM takes tokens alone")

    completion = render_chat_completion = chat_completion

    async def get_world_size(self) -> tuple[int, int]:
        return 1, 1

    async def update_named_weights(self, request: Any) -> None:
        await self.server.load_adapter.remote(request.lora_path)

    def increment_weight_version(self) -> None:
        self.weight_version += 1

    async def nothing(self, *_: Any, **__: Any) -> None:
        """There is no memory to hand over between trainer and sampler, nor a cache to clear."""

    wake_up = sleep = init_weight_update_communicator = teardown = reset_prefix_cache = nothing
    pause_generation = resume_generation = finish_session = nothing


class Sender(WeightTransferSender):
    """Sends the weights of rank 0, which are whole."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def send_chunks(self, chunks: Iterable[Any], weight_metadata: Any = None) -> None:
        # Every rank has to drain the chunks: gathering a shard is collective.
        whole = {
            name: tensor.float().cpu().clone()
            for chunk in chunks
            for name, tensor in zip(chunk.names, chunk.tensors, strict=True)
        }
        if torch.distributed.get_rank() == 0:
            await self.client.server.load_weights.remote(whole)

    def teardown(self) -> None:
        """There is nothing to take down."""


class Transfer(WeightTransferStrategy):
    """Weights go through Ray."""

    @staticmethod
    def create_init_info(ie_cfg: Any, inference_world_size: int | None = None) -> Any:
        return None

    @staticmethod
    def get_vllm_transfer_engine() -> type:
        raise NotImplementedError("there is no vLLM")

    @staticmethod
    def create_sender(init_info: Any, inference_client: Any) -> Sender:
        return Sender(inference_client)
