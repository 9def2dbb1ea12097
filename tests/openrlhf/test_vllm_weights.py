"""The rules by which vLLM's published loader takes a weight, and the stand-in for it on a CPU too."""

import pytest
import tiny_model
import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM
from vllm.weights import load_weights

LAYER = "model.layers.0.self_attn"


def small(**settings):
    return tiny_model.small_qwen2(16, hidden_size=32, layers=2, **settings)


def tied():
    config = small().config.to_dict() | {"tie_word_embeddings": True}
    return Qwen2ForCausalLM(Qwen2Config(**config))


def test_every_weight_of_the_same_model_is_taken():
    sent, model = small(seed=1), small(seed=0)
    loaded = load_weights(model, sent.named_parameters())
    assert loaded == {name for name, _ in model.named_parameters()}
    for name, weight in sent.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name


def test_weights_are_taken_one_by_one_and_cast():
    model = small().bfloat16()
    weight = torch.full((32,), 1.0 + 2**-12)
    assert load_weights(model, [("model.norm.weight", weight)]) == {"model.norm.weight"}
    assert model.model.norm.weight.dtype == torch.bfloat16
    assert torch.equal(model.model.norm.weight.data, torch.ones(32, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            f"base_model.model.{LAYER}.q_proj.weight",
            "'base_model' is no module or parameter of Qwen2ForCausalLM",
        ),
        (f"{LAYER}.q_proj.base_layer.weight", f"'{LAYER}.q_proj.base_layer' is no module"),
        (f"{LAYER}.q_proj.lora_A.default.weight", f"'{LAYER}.q_proj.lora_A' is no module"),
        (f"{LAYER}.q_proj.lora_magnitude_vector", f"'{LAYER}.q_proj.lora_magnitude_vector' is no module"),
        ("model.layers.2.mlp.up_proj.weight", "'model.layers.2' is no module"),
        ("model.layers.2.mlp.up_proj.bias", "'model.layers.2' is no module"),
        ("model.norm.weight.scale", "'model.norm.weight.scale' is a name below the single parameter"),
        ("model.norm", "'model.norm' is a module of Qwen2ForCausalLM, not a parameter"),
        ("model.bias", "'model.bias' is no module"),
        ("bias", "'bias' is no module"),
    ],
)
def test_unknown_names_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        load_weights(small(), [(name, torch.zeros(32))])


@pytest.mark.parametrize(
    "name",
    [
        f"{LAYER}.o_proj.bias",  # of a layer without one
        "model.norm.weight.bias",
        f"{LAYER}.rotary_emb.inv_freq",
        f"base_model.{LAYER}.rotary_emb.cos_cached",
    ],
)
def test_some_unknown_names_are_ignored(name):
    model = small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert load_weights(model, [(name, torch.zeros(32))]) == set()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_another_shape_is_refused_unless_both_are_one_number():
    for shape in ((31,), (1,), (1, 32), (32, 1)):
        with pytest.raises(AssertionError, match="for a parameter of"):
            load_weights(small(), [("model.norm.weight", torch.zeros(shape))])
    module = torch.nn.Module()
    module.scale = torch.nn.Parameter(torch.zeros(1))
    load_weights(module, [("scale", torch.tensor(2.0))])
    assert module.scale.item() == 2.0


def test_a_saved_buffer_is_a_weight_and_another_buffer_is_not():
    module = torch.nn.Module()
    module.register_buffer("saved", torch.zeros(2))
    module.register_buffer("made", torch.zeros(2), persistent=False)
    load_weights(module, [("saved", torch.ones(2))])
    assert torch.equal(module.saved, torch.ones(2))
    with pytest.raises(ValueError, match="'made' is no module or parameter"):
        load_weights(module, [("made", torch.ones(2))])


def test_a_tied_head_is_skipped_but_not_sent_alone():
    model, weight = tied(), torch.ones(16, 32)
    sent = [("model.embed_tokens.weight", weight), ("lm_head.weight", weight + 1)]
    assert load_weights(model, sent) == {"model.embed_tokens.weight"}
    assert torch.equal(model.lm_head.weight.data, weight)
    with pytest.raises(ValueError, match=r"'lm_head.weight' was skipped because it is tied to"):
        load_weights(model, sent[1:])


def test_an_adapters_names_are_all_refused():
    """Those that OpenRLHF 0.11.2 sends for a policy with LoRA."""
    policy = get_peft_model(small(), LoraConfig(r=2, target_modules="all-linear"))
    for name, weight in policy.named_parameters():
        with pytest.raises(ValueError, match="no module or parameter"):
            load_weights(small(), [(name, weight)])
