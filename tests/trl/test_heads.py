"""Heads whose logits are not a plain weight times hidden states are refused when the trainer is built."""

import pytest
import tiny_model
import torch
from transformers import Qwen2ForCausalLM

peft = pytest.importorskip("peft")


class Int8Linear(torch.nn.Linear):
    """As of quantization libraries: a layer of their own, with integers for a weight."""

    def __init__(self, layer):
        super().__init__(layer.in_features, layer.out_features, bias=False)
        self.scale = layer.weight.detach().abs().max() / 127
        self.weight = torch.nn.Parameter((layer.weight / self.scale).round().to(torch.int8), False)

    def forward(self, hidden):
        return hidden @ (self.weight * self.scale).T


class PackedTensor(torch.Tensor):
    """As of torchao: a tensor of another class in a plain layer."""


def make_model(change=None, tied=False):
    model = tiny_model.small_qwen2(len(tiny_model.character_tokenizer()), hidden_size=32, layers=1)
    if tied:
        model.config.tie_word_embeddings = True
        model = Qwen2ForCausalLM(model.config)
    if change == "int8":
        model.lm_head = Int8Linear(model.lm_head)
    if change == "packed":
        weight = model.lm_head.weight.detach().as_subclass(PackedTensor)
        model.lm_head.weight = torch.nn.Parameter(weight, requires_grad=False)
    return model


@pytest.fixture
def build(make_trainer):
    def make(estimator, model, **extra):
        extra = {"processing_class": tiny_model.character_tokenizer(), **extra}
        return make_trainer(estimator, model=model, extra=extra)

    return make


@pytest.mark.parametrize(("change", "named"), [("int8", "Int8Linear"), ("packed", "PackedTensor")])
def test_quantized_heads_are_refused_at_construction(build, change, named):
    for policy, reference in ((change, None), (None, change)):
        with pytest.raises(
            ValueError, match=rf"lm_head is a .*{named}.*out of the adapter and of quantization"
        ):
            build("dgpo", make_model(policy), ref_model=make_model(reference))
    build("gtpo", make_model(), ref_model=make_model(change))  # reads the policy's entropy alone
    build("grpo", make_model(change), ref_model=make_model(change))


def test_adapters_on_the_head_are_refused_at_construction(build):
    on_head = peft.LoraConfig(r=2, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM")
    with pytest.raises(ValueError, match="lm_head"):  # from 1.15 on, by TRL itself
        build("dgpo", make_model(), peft_config=on_head)
    tokens = {"target_modules": ["q_proj"], "trainable_token_indices": [3, 4]}
    config = peft.LoraConfig(r=2, task_type="CAUSAL_LM", **tokens)
    with pytest.raises(ValueError, match="lm_head is a .*TrainableTokensWrapper"):
        build("dgpo", make_model(tied=True), peft_config=config)
    build("dgpo", make_model(), peft_config=config)  # the tokens of embeddings alone
