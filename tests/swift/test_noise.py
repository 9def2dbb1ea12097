"""Which models are random while they train, and the time that statistics take."""

from types import SimpleNamespace

import pytest
import torch
from peft import BOFTConfig, LoKrConfig, LoraConfig, get_peft_model
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from credit.adapters.randomness import is_random
from credit.adapters.swift import statistics

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 11}
SMALL |= {"num_attention_heads": 2, "num_key_value_heads": 2}
MODELS = {
    "plain": (Qwen2ForCausalLM, Qwen2Config, {}, False),
    "attention dropout": (Qwen2ForCausalLM, Qwen2Config, {"attention_dropout": 0.1}, True),
    "experts": (MixtralForCausalLM, MixtralConfig, {}, False),
    "jitter": (MixtralForCausalLM, MixtralConfig, {"router_jitter_noise": 0.5}, True),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_is_random_in_training_is_known_and_is_not_in_eval_mode(name):
    kind, config, more, expected = MODELS[name]
    torch.manual_seed(0)
    model = kind(config(**SMALL | more, attn_implementation="eager")).train()
    trainer = SimpleNamespace(
        args=SimpleNamespace(neftune_noise_alpha=None),
        accelerator=SimpleNamespace(unwrap_model=lambda given: given),
    )
    ids = torch.arange(10)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, model(ids).logits) != expected
        with statistics._eval_mode(model):
            assert model.training
            assert torch.equal(model(ids).logits, model(ids).logits)
    assert statistics._is_random(trainer, model, adapted=True) == expected
    assert not statistics._is_random(trainer, model.eval(), adapted=True)


ADAPTERS = {
    "lora": (LoraConfig(target_modules=["q_proj"]), False),
    "lora with dropout": (LoraConfig(target_modules=["q_proj"], lora_dropout=0.1), True),
    "lokr": (LoKrConfig(target_modules=["q_proj"]), False),
    "lokr with module dropout": (LoKrConfig(target_modules=["q_proj"], module_dropout=0.5), True),
    "boft with dropout": (BOFTConfig(target_modules=["q_proj"], boft_block_size=4, boft_dropout=0.5), True),
}


@pytest.mark.filterwarnings("ignore")  # of BOFT, which would build its kernels for a GPU
@pytest.mark.parametrize("name", ADAPTERS)
def test_what_an_adapter_drops_out_is_known(name):
    config, expected = ADAPTERS[name]
    base = Qwen2ForCausalLM(Qwen2Config(**SMALL))
    model = get_peft_model(base, config).train()
    assert is_random(model, base.config, True, None) == expected
    assert not is_random(model.eval(), base.config, True, None)


def test_layers_that_are_left_out_at_random_are_known():
    shape = {"hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = OPTConfig(**shape, word_embed_proj_dim=16, vocab_size=11, dropout=0.0, layerdrop=0.5)
    model = OPTForCausalLM(config).train()
    assert is_random(model, config, True, None)
    assert not is_random(model.eval(), config, True, None)


def test_time_within_time_counts_once(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(statistics.time, "perf_counter", lambda: next(clock))
    scoring = statistics.start_scoring(("log_probs",), 1.0)
    with scoring.timed(), scoring.timed():  # from 0 to 3, and within that from 1 to 2
        pass
    with scoring.timed():  # from 4 to 5
        pass
    assert scoring.seconds == 4
