"""A stand-in for vLLM on a CPU: a Hugging Face model behind what OpenRLHF's engine calls.

OpenRLHF's RolloutRayActor, its agent executor, its reward calls and its weight sync run as they are.
"""

import asyncio
import types
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any

import gpu_on_cpu
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from vllm import sampling
from vllm.images import Images
from vllm.weights import load_weights

__version__ = "0.29.0"  # that OpenRLHF 0.11.2 asks for
MAX_LOGPROBS, MAX_IMAGES = 20, 999  # vLLM's defaults


class SamplingParams(types.SimpleNamespace):
    """temperature, top_p, top_k, max_tokens, min_tokens, logprobs, ..."""


class AsyncEngineArgs(types.SimpleNamespace):
    """model, seed, worker_extension_cls, ..."""


class Worker:
    """Holds the model, which OpenRLHF's WorkerWrap sends weights to."""

    device = torch.device("cpu:0")  # the index is that of the one GPU that Ray lets a process see

    def __init__(self, args: AsyncEngineArgs) -> None:
        torch.manual_seed(args.seed)
        torch.set_num_threads(1)
        if not torch.distributed.is_initialized():
            store = torch.distributed.HashStore()
            torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        self.reads_images = hasattr(AutoConfig.from_pretrained(args.model), "vision_config")
        kind = AutoModelForImageTextToText if self.reads_images else AutoModelForCausalLM
        dtype = getattr(torch, args.dtype)
        self.model = kind.from_pretrained(args.model, dtype=dtype).eval()
        self.model_config = types.SimpleNamespace(dtype=dtype)
        self.model_runner = types.SimpleNamespace(model=self)

    def load_weights(self, weights: list[tuple[str, torch.Tensor]]) -> set[str]:
        """The trainer's weights, of which what vLLM would refuse is refused."""
        return load_weights(self.model, weights)


class AsyncLLMEngine:
    """Samples one response per request, while it is awake."""

    def __init__(self, args: AsyncEngineArgs) -> None:
        module, _, name = args.worker_extension_cls.rpartition(".")
        extension = getattr(import_module(module), name)
        self.args = args
        self.worker = type("Worker", (extension, Worker), {})(args)
        longest = self.worker.model.config.get_text_config().max_position_embeddings
        if args.max_model_len > longest:
            raise ValueError(f"max_model_len {args.max_model_len} is more than the model's {longest}")
        if args.tensor_parallel_size != 1:
            raise ValueError("this engine has one worker; set --vllm.tensor_parallel_size 1")
        self.tokenizer = AutoTokenizer.from_pretrained(args.model)
        limit = getattr(args, "limit_mm_per_prompt", {}).get("image", MAX_IMAGES)
        self.images = Images(args.model, self.worker.reads_images, limit)
        self.asleep: set[str] = set()
        self.running = asyncio.Event()
        self.running.set()
        self.unfinished = 0
        self.output_processor = types.SimpleNamespace(get_num_unfinished_requests=lambda: self.unfinished)

    @classmethod
    def from_engine_args(cls, args: AsyncEngineArgs) -> "AsyncLLMEngine":
        return cls(args)

    async def collective_rpc(self, method: str, args: tuple = ()) -> list:
        if "weight" in method and "weights" in self.asleep:
            raise RuntimeError(f"{method}: the weights are asleep, their memory is not there")
        with gpu_on_cpu.CudaIsCPU():
            return [getattr(self.worker, method)(*args)]

    async def generate(
        self, prompt: dict[str, Any], params: SamplingParams, request_id: str
    ) -> AsyncIterator[Any]:
        """One output with the sampled token ids and, if asked for, their log-probs."""
        pictures = prompt.get("multi_modal_data", {}).get("image", [])
        ids, inputs = self.images.expand(prompt["prompt_token_ids"], pictures, self.worker.model_config.dtype)
        longest, most = self.args.max_model_len, getattr(self.args, "max_logprobs", MAX_LOGPROBS)
        budget = sampling.check_params(params, len(ids), longest, most)
        processed = getattr(self.args, "logprobs_mode", "") == "processed_logprobs"
        self.unfinished += 1
        try:
            tokens, log_probs, ended = await sampling.sample(
                self.worker.model, ids, params, budget, self._wait, processed=processed, **inputs
            )
        finally:
            self.unfinished -= 1
        text = self.tokenizer.decode(
            tokens[:-1] if ended else tokens, skip_special_tokens=params.skip_special_tokens
        )
        output = types.SimpleNamespace(
            token_ids=tokens,
            text=text,
            logprobs=log_probs if params.logprobs is not None else None,
            finish_reason="stop" if ended else "length",
        )
        yield types.SimpleNamespace(outputs=[output])

    async def _wait(self) -> None:
        """Until generation is not paused. vLLM would wait for ever, or abort, where the engine is asleep."""
        if self.asleep:
            raise RuntimeError(f"a request, while asleep: {sorted(self.asleep)}")
        await self.running.wait()

    async def is_sleeping(self) -> bool:
        return bool(self.asleep)

    async def sleep(self, level: int = 1) -> None:
        """The memory that vLLM hands over is not to be used until `wake_up`."""
        if not self.args.enable_sleep_mode or level != 1:
            raise ValueError(f"sleep(level={level}), enable_sleep_mode={self.args.enable_sleep_mode}")
        self.asleep = {"weights", "kv_cache"}

    async def wake_up(self, tags: list[str] | None = None) -> None:
        if unknown := set(tags or ()) - {"weights", "kv_cache"}:
            raise ValueError(f"unknown tags {unknown}")
        self.asleep -= set(tags or self.asleep)

    async def pause_generation(self, mode: str) -> None:
        if mode != "keep":
            raise ValueError(f"mode {mode} is not implemented on a CPU")
        self.running.clear()

    async def resume_generation(self) -> None:
        self.running.set()

    async def reset_prefix_cache(self) -> None:
        """There is no cache to clear: each request computes its own keys and values."""
