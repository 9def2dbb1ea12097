"""Models without a way to statistics are refused when verl's worker is built; others take another way."""

from types import SimpleNamespace

import pytest
import score_rank
import tiny_model
import torch
from peft import LoraConfig, get_peft_model
from ranks import run
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
)

from credit.adapters.heads import find_head, refuse_other_logits
from credit.adapters.verl import hidden_states, logits_hook, statistics


def worker(module, strategy="fsdp2", fused=False, to_length=False):
    """What a TrainingWorker holds before FSDP has wrapped its model."""
    return SimpleNamespace(
        engine=SimpleNamespace(
            module=module,
            device_mesh=None,
            model_config=SimpleNamespace(use_fused_kernels=fused),
            engine_config=SimpleNamespace(strategy=strategy, pad_to_length=to_length),
            forward_step=None,
        )
    )


def small():
    return tiny_model.small_qwen2(12, hidden_size=16, layers=1)


def with_lora_on_its_head():
    config = LoraConfig(r=2, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM")
    return get_peft_model(small(), config)


def gemma2():
    sizes = {"vocab_size": 12, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    return Gemma2ForCausalLM(Gemma2Config(**sizes, **heads, final_logit_softcapping=2.0))


def recurrent_gemma():
    sizes = {"vocab_size": 12, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "lru_width": 16}
    return RecurrentGemmaForCausalLM(RecurrentGemmaConfig(**sizes, **heads, logits_soft_cap=2.0))


def with_bias():
    model = small()
    model.lm_head = torch.nn.Linear(16, 12)
    return model


@pytest.mark.parametrize("option", ["fused", "to_length"])
def test_a_head_that_is_not_plain_is_refused_where_there_are_no_logits(option):
    other = worker(with_lora_on_its_head(), **{option: True})
    name = {"fused": "use_fused_kernels", "to_length": "pad_to_length"}[option]
    with pytest.raises(
        ValueError, match=rf"{name}=True leaves no logits .*lm_head is a .*; or set .*{name}=F"
    ):
        statistics.refuse_without_logits(other, None)
    with pytest.raises(ValueError, match="lm_head is a"):
        statistics.refuse_without_logits(worker(small(), **{option: True}), worker(with_lora_on_its_head()))
    statistics.refuse_without_logits(worker(small(), **{option: True}), worker(small()))
    statistics.refuse_without_logits(worker(with_lora_on_its_head()), None)


def test_engines_whose_hidden_states_are_not_read_need_their_logits():
    with pytest.raises(ValueError, match="strategy=fsdp or fsdp2, not with veomni"):
        statistics.refuse_without_logits(worker(small(), "veomni", fused=True), None)
    statistics.refuse_without_logits(worker(small(), "veomni"), None)


@pytest.mark.parametrize(
    ("make", "part"), [(gemma2, "soft cap"), (recurrent_gemma, "soft cap"), (with_bias, "bias")]
)
def test_what_fused_kernels_leave_out_is_refused(make, part):
    with pytest.raises(
        ValueError, match=f"leave out the {part} of this model's logits; set .*fused_kernels=F"
    ):
        statistics.refuse_without_logits(worker(make(), fused=True), None)
    statistics.refuse_without_logits(worker(make()), None)


def test_a_head_that_is_not_plain_leaves_the_way_over_logits(monkeypatch):
    for module in (hidden_states, logits_hook):
        monkeypatch.setattr(module, "collect_statistics", lambda *_, name=module.__name__: name)
    for model, way in ((small(), hidden_states), (with_lora_on_its_head(), logits_hook)):
        found = statistics.collect_statistics(worker(model), None, {}, ("deviation",), 256)
        assert found == way.__name__


def test_fused_kernels_on_a_shard_of_the_head_are_refused_by_the_worker(tmp_path):
    model, tokenizer = small(), tiny_model.character_tokenizer()
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    with pytest.raises(AssertionError, match="ValueError: verl's fused kernels read the weight of lm_head"):
        run(
            *(score_rank.__file__, 1, str(tmp_path / "model"), str(tmp_path)),
            "actor_rollout_ref.model.use_fused_kernels=True",
        )


def test_log_probs_that_are_not_the_models_are_an_error():
    own = torch.linspace(-9, -1, 8)
    refuse_other_logits(own.bfloat16(), own, hidden_states.WAY_OUT)
    refuse_other_logits(own[:0], own[:0], hidden_states.WAY_OUT)
    message = (
        "2 nats off those of the framework, so its logits are made in another way; use .*divergence=binary"
    )
    with pytest.raises(ValueError, match=message):
        refuse_other_logits(own - 2.0, own, hidden_states.WAY_OUT)


def test_the_soft_cap_of_every_gemma_is_known():
    assert [find_head(make()).soft_cap for make in (gemma2, recurrent_gemma, small)] == [2.0, 2.0, None]
