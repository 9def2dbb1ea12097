"""Completions with the credit of their tokens, written while training."""

import pytest
import slime_batch
import transformers
from tokenizers import Tokenizer, models

from credit import lens


@pytest.fixture
def tokenizer(tmp_path):
    """One character per id."""
    letters = {chr(97 + i) if i < 26 else chr(65 + i - 26): i for i in range(slime_batch.VOCABULARY)}
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(letters, unk_token="a"))
    )
    fast.save_pretrained(tmp_path / "tokenizer")
    return fast


def test_rollouts_are_recorded_with_their_prompts_and_statistics(megatron, tokenizer, tmp_path):
    samples = slime_batch.make_samples()
    settings = {"tau": 0.05, "record_steps": 1, "record_completions": 8}
    places = {"hf_checkpoint": str(tmp_path / "tokenizer"), "save": str(tmp_path)}
    args = slime_batch.name_args("dgpo", samples, settings, **slime_batch.HOOKED, **places)
    data = slime_batch.assign(args, slime_batch.make_models(), samples)
    lines = list(lens.read(tmp_path / "credit.jsonl"))
    assert len(lines) == 8
    for line, sample, advantages in zip(lines, samples, data["advantages"], strict=False):
        length = len(sample["mask"])
        text = tokenizer.decode(sample["tokens"]).replace(" ", "")
        assert line.prompt.replace(" ", "") + "".join(line.tokens).replace(" ", "") == text
        assert line.reward == sample["reward"]
        assert line.advantages == pytest.approx(advantages.tolist(), abs=1e-5)
        shown = (line.deviation, line.normalized_entropy, line.log_probs, line.reference_log_probs)
        assert all(len(values) == length for values in shown)
        assert len(line.tokens) == length


def test_every_second_rollout_is_recorded(megatron, tokenizer, tmp_path):
    samples = slime_batch.make_samples()
    path = tmp_path / "elsewhere" / "records.jsonl"
    settings = {"record_steps": 2, "record_completions": 1, "record_path": str(path)}
    args = slime_batch.name_args("grpo", samples, settings, hf_checkpoint=str(tmp_path / "tokenizer"))
    for _ in range(3):
        slime_batch.assign(args, slime_batch.make_models(), samples)
    assert [line.step for line in lens.read(path)] == [0] * 4 + [2] * 4


def test_a_resumed_run_counts_on(megatron, tokenizer, tmp_path):
    samples = slime_batch.make_samples()
    places = {"hf_checkpoint": str(tmp_path / "tokenizer"), "save": str(tmp_path), "start_rollout_id": 6}
    args = slime_batch.name_args("grpo", samples, {"record_steps": 1, "record_completions": 1}, **places)
    slime_batch.assign(args, slime_batch.make_models(), samples)
    assert {line.step for line in lens.read(tmp_path / "credit.jsonl")} == {6}
