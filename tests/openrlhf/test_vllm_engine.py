"""The example's stand-in for vLLM's engine samples as vLLM does, and refuses what vLLM refuses."""

import asyncio
import types

import pytest
import script_models
import tiny_model
import torch
import vision_models
import vllm
from openrlhf.utils.vlm_utils import dedup_media_tokens

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
        args = {
            "model": folder,
            "seed": 0,
            "worker_extension_cls": extension,
            "max_model_len": 24,
            "dtype": "bfloat16",
        }
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


def test_a_placeholder_becomes_as_many_tokens_as_its_image_takes(engine, tmp_path):
    processor = script_models.save_vision_model(tmp_path)
    made = engine(model=str(tmp_path), limit_mm_per_prompt={"image": 1})
    picture, place = vision_models.picture(0), processor.image_token_id
    text = "<|vision_start|><|image_pad|><|vision_end|>12>"
    whole = processor(text=[text], images=[picture], add_special_tokens=False, return_tensors="pt")
    ids = whole["input_ids"][0].tolist()
    single = dedup_media_tokens(ids, {place})
    assert len(single) == len(ids) - 1

    def ask_with(images, prompt=single):
        given = {"prompt_token_ids": prompt, "multi_modal_data": {"image": images}}

        async def run():
            greedy = params(temperature=0.0, max_tokens=1, min_tokens=0)
            return [each async for each in made.generate(given, greedy, "0")]

        return asyncio.run(run())[0].outputs[0]

    with torch.no_grad():
        whole["pixel_values"] = whole["pixel_values"].bfloat16()
        logits = made.worker.model(**whole).logits[0, -1].float()
    output = ask_with([picture])
    assert output.token_ids == [int(logits.argmax())]
    found = output.logprobs[0][output.token_ids[0]].logprob
    assert found == pytest.approx(float(logits.log_softmax(-1).max()), abs=1e-3)
    assert ask_with([vision_models.picture(1)]).logprobs[0] != output.logprobs[0]
    with pytest.raises(ValueError, match="2 images; limit_mm_per_prompt allows 1"):
        ask_with([picture, picture])
    with pytest.raises(ValueError, match="2 placeholders for 1 images"):
        ask_with([picture], ids)  # expanded already


def test_a_model_of_text_refuses_images(engine):
    with pytest.raises(ValueError, match="the model reads no images"):
        engine().images.expand([3], [vision_models.picture(0)], torch.bfloat16)
