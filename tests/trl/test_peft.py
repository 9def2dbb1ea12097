"""PEFT: the reference is the policy without its adapter, or with the adapter as it was given."""

import pytest
import tiny_model
import torch
from transformers import AutoModelForCausalLM

peft = pytest.importorskip("peft")
LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


@pytest.mark.releases
@pytest.mark.parametrize("more", [{}, {"modules_to_save": ["lm_head"]}], ids=["lora", "and a whole head"])
def test_a_new_adapter_is_compared_with_none(train, more):
    trainer, log = train("dgpo", extra={"peft_config": peft.LoraConfig(**LORA, **more)})
    assert trainer.ref_model is None
    assert log[0]["credit/deviation_max"] == 0.0
    assert log[2]["credit/deviation_mean"] > 1e-4


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_weights_that_train_beside_the_adapter_are_refused(train, bias):
    """Without the adapter the model keeps them, so that the reference would train along."""
    config = peft.LoraConfig(**LORA, bias=bias)
    with pytest.raises(
        ValueError, match="bias trains outside of the adapter.*set bias='none' in peft_config"
    ):
        train("dgpo", extra={"peft_config": config})
    train("entropy_shaped", extra={"peft_config": config})


@pytest.mark.releases
def test_a_trained_adapter_is_compared_with_a_copy_of_itself(train, model_path):
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(model_path)
    model = peft.get_peft_model(base, peft.LoraConfig(**LORA, init_lora_weights=False))
    trainer, log = train("dgpo", model=model, extra={"processing_class": tiny_model.character_tokenizer()})
    assert list(trainer.model.peft_config) == ["default", "ref"]
    assert trainer.model.active_adapter == "default"
    assert log[0]["credit/deviation_max"] == 0.0
    assert log[2]["credit/deviation_mean"] > 1e-4
