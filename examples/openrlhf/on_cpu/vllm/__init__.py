"""A stand-in for vLLM on a CPU: Hugging Face's generate behind what OpenRLHF's engine calls.

OpenRLHF's RolloutRayActor, its agent executor, its reward calls and its weight sync run as they are.
"""

import types
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any

import gpu_on_cpu
import torch
from transformers import AutoModelForCausalLM

from vllm.weights import load_weights

__version__ = "0.29.0"  # that OpenRLHF 0.11.2 asks for


class SamplingParams(types.SimpleNamespace):
    """temperature, top_p, top_k, max_tokens, min_tokens, logprobs, ..."""


class AsyncEngineArgs(types.SimpleNamespace):
    """model, seed, worker_extension_cls, ..."""


class Worker:
    """Holds the model, which OpenRLHF's WorkerWrap sends weights to."""

    device = torch.device("cpu")

    def __init__(self, args: AsyncEngineArgs) -> None:
        torch.manual_seed(args.seed)
        torch.set_num_threads(1)
        if not torch.distributed.is_initialized():
            store = torch.distributed.HashStore()
            torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        dtype = getattr(torch, args.dtype)
        self.model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype).eval()
        self.model_config = types.SimpleNamespace(dtype=dtype)
        self.model_runner = types.SimpleNamespace(model=self)

    def load_weights(self, weights: list[tuple[str, torch.Tensor]]) -> set[str]:
        """The trainer's weights, of which what vLLM would refuse is refused."""
        return load_weights(self.model, weights)


class AsyncLLMEngine:
    """Samples one response per request."""

    def __init__(self, args: AsyncEngineArgs) -> None:
        module, _, name = args.worker_extension_cls.rpartition(".")
        extension = getattr(import_module(module), name)
        self.worker = type("Worker", (extension, Worker), {})(args)
        self.output_processor = types.SimpleNamespace(get_num_unfinished_requests=lambda: 0)

    @classmethod
    def from_engine_args(cls, args: AsyncEngineArgs) -> "AsyncLLMEngine":
        return cls(args)

    async def collective_rpc(self, method: str, args: tuple = ()) -> list:
        with gpu_on_cpu.CudaIsCPU():
            return [getattr(self.worker, method)(*args)]

    async def generate(
        self, prompt: dict[str, Any], params: SamplingParams, request_id: str
    ) -> AsyncIterator[Any]:
        """One output with the sampled token ids and, if asked for, their log-probs."""
        ids = torch.tensor([prompt["prompt_token_ids"]])
        with torch.no_grad():
            made = self.worker.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=params.max_tokens,
                do_sample=params.temperature > 0,
                temperature=params.temperature or None,
                top_k=0,
                top_p=params.top_p,
                output_logits=True,
                return_dict_in_generate=True,
            )
        tokens = made.sequences[0, ids.shape[1] :].tolist()
        end = self.worker.model.generation_config.eos_token_id
        output = types.SimpleNamespace(
            token_ids=tokens,
            text="",
            logprobs=_log_probs(tokens, made.logits, params) if params.logprobs is not None else None,
            finish_reason="stop" if tokens[-1] == end else "length",
        )
        yield types.SimpleNamespace(outputs=[output])

    async def nothing(self, *_: Any, **__: Any) -> bool:
        """There is no memory to hand over, and no cache to clear."""
        return False

    is_sleeping = sleep = wake_up = reset_prefix_cache = pause_generation = resume_generation = nothing


def _log_probs(tokens: list[int], logits: Any, params: SamplingParams) -> list[dict[int, Any]]:
    each = [(row[0].float() / (params.temperature or 1.0)).log_softmax(-1) for row in logits]
    return [
        {token: types.SimpleNamespace(logprob=float(row[token]))}
        for token, row in zip(tokens, each, strict=True)
    ]
