"""What vLLM gets of a policy with LoRA, against PEFT's own merge."""

import openrlhf_lora_rank
import pytest
import ranks
import tiny_model
import torch
import vision_models
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from credit.adapters.openrlhf import lora


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    tiny_model.small_qwen2(16, hidden_size=32, layers=2).bfloat16().save_pretrained(path)
    return str(path)


def adapted(model, **settings):
    return get_peft_model(
        model, LoraConfig(r=4, lora_alpha=16, **{"target_modules": "all-linear"} | settings)
    )


def merged(folder, weights):
    """PEFT's model of these weights, merged in place."""
    policy = adapted(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16))
    for name, parameter in policy.named_parameters():
        parameter.data = weights[name]
    return policy.merge_and_unload().state_dict()


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_the_engine_has_the_merged_weights_to_the_bit(folder, tmp_path, zero_stage):
    out = tmp_path / "got.pt"
    flags = "--model", folder, "--out", str(out), "--zero-stage", str(zero_stage)
    ranks.run(openrlhf_lora_rank.__file__, 2, *flags)
    got = torch.load(out)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).state_dict()
    dtypes = {weight.dtype for name, weight in got["policy"].items() if "lora_" in name}
    assert dtypes == {torch.float32 if zero_stage == 3 else torch.bfloat16}
    expected = merged(folder, got["policy"])
    for names, weights in (got["group"], got["ipc"]):
        assert names == list(base)
        assert expected.keys() == weights.keys()
        for name, weight in expected.items():
            assert torch.equal(weights[name], weight), name
            assert torch.equal(weight, base[name]) != ("_proj.weight" in name), name


@pytest.mark.parametrize("target_modules", ["all-linear", ["embed_tokens", "q_proj"]])
@pytest.mark.parametrize("images", [False, True])
def test_all_kinds_of_layers_are_merged_under_the_models_own_names(target_modules, images):
    small = tiny_model.small_qwen2(16, hidden_size=32, layers=1)
    model = vision_models.qwen25()[0] if images else small
    policy = adapted(model, target_modules=target_modules, init_lora_weights=False)
    found = {name: weight.clone() for name, weight in lora.merge_weights(policy)}
    expected = policy.merge_and_unload().state_dict()
    assert list(found) == list(expected)
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


def test_weights_are_sent_in_batches_with_few_copies(monkeypatch):
    monkeypatch.setattr(lora, "COPIES", 3 * 32 * 32 * 4)  # three attention weights
    policy = adapted(tiny_model.small_qwen2(16, hidden_size=32, layers=2))
    batches = list(lora._take_batches(lora.merge_weights(policy)))
    names = [name for batch in batches for name, _ in batch]
    assert names == [name for name, _ in tiny_model.small_qwen2(16, layers=2).named_parameters()]
    for batch in batches:
        copies = [weight.nbytes for _, weight in batch if not isinstance(weight, torch.nn.Parameter)]
        assert sum(copies[:-1]) < lora.COPIES
    assert len(batches) > 4


def test_a_tied_weight_cannot_be_adapted_in_one_place():
    config = tiny_model.small_qwen2(16, hidden_size=32, layers=1).config.to_dict()
    model = Qwen2ForCausalLM(Qwen2Config(**config | {"tie_word_embeddings": True}))
    lora.refuse_unmergeable(adapted(model))
    with pytest.raises(ValueError, match="shares its weight with .*lm_head.weight, which has not"):
        lora.refuse_unmergeable(adapted(model, target_modules=["embed_tokens"]))


def test_parameters_without_a_layer_of_their_own_cannot_be_merged():
    model = tiny_model.small_qwen2(16, hidden_size=32, layers=1)
    policy = adapted(model, target_modules=[], target_parameters=["q_proj.weight"])
    with pytest.raises(ValueError, match=r"adapter of .*q_proj \(ParamWrapper\) cannot be merged"):
        lora.refuse_unmergeable(policy)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--ds.load_in_4bit", "--ds.load_in_4bit packs the weights that --ds.lora.rank 4 adapts"),
        ("--ds.tensor_parallel_size 2", "--ds.tensor_parallel_size 2 splits the weights that --ds.lora.rank"),
    ],
)
@pytest.mark.parametrize("estimator", ["dgpo", "grpo"])
def test_weights_that_are_not_whole_are_refused_with_lora(parse, capsys, flags, message, estimator):
    parse("--algo.advantage.estimator", estimator, *flags.split(), "--ds.tensor_parallel_size", 1)
    lora_flags = "--ds.lora.rank", 4, *flags.split()
    parse("--algo.advantage.estimator", "group_norm", *lora_flags)  # OpenRLHF's own runs stay as they are
    with pytest.raises(SystemExit):
        parse("--algo.advantage.estimator", estimator, *lora_flags)
    assert message in " ".join(capsys.readouterr().err.split())
