"""The example's stand-ins for a GPU, DeepSpeed's kernels and vLLM refuse what the real ones refuse."""

import asyncio
import os
import pickle
import subprocess
import sys
import types

import deepspeed_on_cpu  # noqa: F401  (before DeepSpeed's optimizers)
import gpu_on_cpu
import pytest
import tiny_model
import torch
import vllm
from deepspeed.ops.adam import DeepSpeedCPUAdam, FusedAdam
from torch.multiprocessing.reductions import reduce_tensor


@pytest.mark.parametrize(
    ("kind", "mode", "other"),
    [
        (FusedAdam, {"adam_w_mode": True}, torch.optim.AdamW),
        (FusedAdam, {"adam_w_mode": False}, torch.optim.Adam),
        (DeepSpeedCPUAdam, {"adamw_mode": True}, torch.optim.AdamW),
        (DeepSpeedCPUAdam, {"adamw_mode": False}, torch.optim.Adam),
    ],
)
def test_deepspeeds_optimizers_step_as_torchs(kind, mode, other):
    generator = torch.Generator().manual_seed(0)
    ours = [torch.randn(shape, generator=generator, requires_grad=True) for shape in ((5,), (2, 3))]
    theirs = [parameter.detach().clone().requires_grad_() for parameter in ours]
    settings = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    steps = kind(ours, **settings, **mode), other(theirs, **settings)
    for _ in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        for optimizer in steps:
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


OPEN = """
import pickle, sys
function, args = pickle.load(sys.stdin.buffer)
tensor = function(*args[:6], 0)  # the seventh argument becomes the receiver's own device
print(tensor.tolist())
tensor.add_(1)
"""


def test_a_handle_is_the_senders_memory_and_not_a_copy():
    tensor = torch.arange(6.0).view(2, 3).bfloat16()
    function, args = reduce_tensor(tensor)
    done = subprocess.run(
        [sys.executable, "-c", OPEN],
        input=pickle.dumps((function, args)),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert done.stdout.decode().split("\n")[-2] == "[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]"
    assert tensor.tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    with pytest.raises(RuntimeError, match="the process that made it"):
        function(*args)


def test_a_handle_is_of_the_one_gpu_that_a_process_sees(monkeypatch):
    function, args = reduce_tensor(torch.zeros(2))
    monkeypatch.setattr(gpu_on_cpu.os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="device 1: Ray lets a process see one GPU"):
        function(*args[:6], 1)


PARAMS = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "max_tokens": 6, "min_tokens": 1, "logprobs": 1}


def params(**changes):
    return vllm.SamplingParams(**(PARAMS | {"skip_special_tokens": False} | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    tokenizer = tiny_model.character_tokenizer()
    tiny_model.small_qwen2(len(tokenizer)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture
def engine(folder, monkeypatch):
    def make(**changes):
        extension = "openrlhf.trainer.ray.vllm_worker_wrap.WorkerWrap"
        args = {"model": folder, "seed": 0, "worker_extension_cls": extension, "max_model_len": 24}
        args |= {"dtype": "bfloat16"}
        args |= {"tensor_parallel_size": 1, "enable_sleep_mode": True, "logprobs_mode": "processed_logprobs"}
        return vllm.AsyncLLMEngine.from_engine_args(vllm.AsyncEngineArgs(**(args | changes)))

    yield make
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


async def ask(engine, sampling, prompt=(3, 4, 5)):
    prompt = {"prompt_token_ids": list(prompt)}
    (answer,) = [each async for each in engine.generate(prompt, sampling, "0")]
    return answer.outputs[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": range(3, 27)}, "the prompt has 24 tokens, and max_model_len is 24"),
        ({"prompt": ()}, "the prompt is empty"),
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0"),
        ({"logprobs": 21}, "logprobs=21 is more than max_logprobs=20"),
        ({"top_p": 0.0}, "out of range"),
        ({"top_k": 5}, "top_k=5 is not implemented"),
    ],
)
def test_the_engine_refuses_what_vllm_refuses(engine, changes, message):
    prompt = changes.pop("prompt", (3, 4, 5))
    with pytest.raises(ValueError, match=message):
        asyncio.run(ask(engine(), params(**changes), prompt))


def test_an_engine_longer_than_its_model_or_in_parts_is_refused(engine):
    with pytest.raises(ValueError, match="max_model_len 65 is more than the model's 64"):
        engine(max_model_len=65)
    with pytest.raises(ValueError, match="set --vllm.tensor_parallel_size 1"):
        engine(tensor_parallel_size=2)


def test_a_sleeping_engine_takes_neither_requests_nor_weights(engine):
    async def run(made):
        await made.sleep()
        with pytest.raises(RuntimeError, match="asleep: .*kv_cache"):
            await ask(made, params())
        with pytest.raises(RuntimeError, match="the weights are asleep"):
            await made.collective_rpc("update_weight", ("lm_head.weight", torch.bfloat16, (17, 128)))
        await made.wake_up(["weights"])
        with pytest.raises(RuntimeError, match="asleep: .'kv_cache'"):
            await ask(made, params())
        await made.wake_up(["kv_cache"])
        assert not await made.is_sleeping()
        return await ask(made, params())

    assert 1 <= len(asyncio.run(run(engine())).token_ids) <= 6
    with pytest.raises(ValueError, match="enable_sleep_mode=False"):
        asyncio.run(engine(enable_sleep_mode=False).sleep())


def test_a_paused_request_goes_on_with_the_new_weights(engine):
    """Partial rollouts: tokens of a response before and after a pause are of different weights."""

    async def run(made):
        task = asyncio.create_task(ask(made, params(max_tokens=20, temperature=0.0)))
        await asyncio.sleep(0)
        await made.pause_generation(mode="keep")
        for _ in range(50):
            await asyncio.sleep(0)
        assert not task.done()
        made.worker.model.lm_head.weight.data.zero_()
        made.worker.model.lm_head.weight.data[7] = 1.0
        made.worker.model.lm_head.weight.data[8] = -1.0
        await made.resume_generation()
        return await task

    before = asyncio.run(ask(engine(), params(max_tokens=20, temperature=0.0))).token_ids
    after = asyncio.run(run(engine())).token_ids
    assert after[0] == before[0]
    assert set(after[1:]) <= {7, 8}
    assert not set(before) <= {7, 8}


@pytest.mark.parametrize("mode", ["raw_logprobs", "processed_logprobs"])
def test_tokens_and_log_probs_are_those_of_the_model(engine, mode):
    made = engine(logprobs_mode=mode)
    torch.manual_seed(1)
    output = asyncio.run(ask(made, params(temperature=0.7, max_tokens=9)))
    ids = torch.tensor([[3, 4, 5, *output.token_ids]])
    with torch.no_grad():
        logits = made.worker.model(ids).logits[0, 2:-1].double()
    logits = logits / (0.7 if mode == "processed_logprobs" else 1.0)
    if mode == "processed_logprobs":
        logits[0, tiny_model.EOS] = -torch.inf  # min_tokens
    expected = logits.log_softmax(-1).gather(1, ids[0, 3:, None])[:, 0]
    found = [each[token].logprob for each, token in zip(output.logprobs, output.token_ids, strict=True)]
    assert found == pytest.approx(expected.tolist(), abs=0.02)  # bfloat16, with and without a cache


class AlwaysEnds:
    """A model that wants the end token, and next to it the token 3."""

    generation_config = types.SimpleNamespace(eos_token_id=tiny_model.EOS)

    def __call__(self, input_ids, **_):
        logits = torch.zeros(*input_ids.shape, 17)
        logits[..., tiny_model.EOS], logits[..., 3] = 9.0, 8.0
        return types.SimpleNamespace(logits=logits, past_key_values=None)


def test_an_end_token_ends_the_response_and_is_not_in_its_text(engine):
    made = engine()
    made.worker.model = AlwaysEnds()
    greedy = {"temperature": 0.0, "max_tokens": 5}
    ended = asyncio.run(ask(made, params(**greedy, min_tokens=2)))
    assert (ended.token_ids, ended.text, ended.finish_reason) == ([3, 3, tiny_model.EOS], "00", "stop")
    cut = asyncio.run(ask(made, params(**greedy, min_tokens=9)))
    assert (cut.token_ids, cut.text, cut.finish_reason) == ([3] * 5, "00000", "length")
    full = asyncio.run(ask(made, params(**greedy | {"max_tokens": None}, min_tokens=99)))
    assert len(full.token_ids) == 24 - 3
