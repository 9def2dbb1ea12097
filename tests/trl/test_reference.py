"""The reference: loaded by TRL, following the policy, or given."""

import pytest
import tiny_model
import torch
from transformers import AutoModelForCausalLM


def test_the_reference_can_follow_the_policy(train):
    settings = {"sync_ref_model": True, "ref_model_sync_steps": 1, "ref_model_mixup_alpha": 1.0}
    _, log = train("dgpo", **settings)
    assert [entry["credit/deviation_max"] for entry in log] == [0.0, 0.0, 0.0]


def test_a_given_reference_is_used(train, recwarn):
    tokenizer = tiny_model.character_tokenizer()
    other = tiny_model.small_qwen2(len(tokenizer), hidden_size=48, layers=1, seed=5)
    trainer, log = train("dgpo", max_steps=1, extra={"ref_model": other})
    assert log[0]["credit/deviation_mean"] > 1e-3
    assert trainer.accelerator.unwrap_model(trainer.ref_model) is other
    assert not [w for w in recwarn if "deviates" in str(w.message)]


def test_a_given_reference_serves_trls_kl_term(train):
    tokenizer = tiny_model.character_tokenizer()
    other = tiny_model.small_qwen2(len(tokenizer), hidden_size=32, layers=2, seed=5)
    _, log = train("grpo", max_steps=1, beta=0.1, extra={"ref_model": other})
    assert log[0]["kl"] > 1e-3


def test_a_policy_that_is_not_its_reference_is_reported(train, model_path):
    model = AutoModelForCausalLM.from_pretrained(model_path)
    with torch.no_grad():
        model.lm_head.weight.mul_(3.0)
    tokenizer = tiny_model.character_tokenizer()
    with pytest.warns(UserWarning, match=r"deviates from its reference by up to 0\.\d+"):
        train("dgpo", max_steps=1, model=model, extra={"processing_class": tokenizer})


def test_dropout_does_not_make_the_policy_deviate_from_itself(train, tmp_path):
    tokenizer = tiny_model.character_tokenizer()
    path = str(tmp_path / "dropout")
    tiny_model.small_qwen2(len(tokenizer), hidden_size=32, attention_dropout=0.5).save_pretrained(path)
    tokenizer.save_pretrained(path)
    trainer, log = train("dgpo", model=path, max_steps=1)
    assert log[0]["credit/deviation_max"] == 0.0
    assert trainer.model.training


def test_a_given_reference_may_have_an_adapter(train, model_path):
    """Both kinds of a reference give the same: the adapter beside the weights, and merged into them."""
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    logs = []
    for merged in (False, True):
        torch.manual_seed(0)
        other = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(model_path), settings)
        other = other.merge_and_unload() if merged else other
        logs.append(train("dgpo", extra={"ref_model": other})[1])
    found, expected = ([entry["credit/deviation_mean"] for entry in log] for log in logs)
    assert min(expected) > 1e-4
    assert found == pytest.approx(expected, rel=1e-3)
