"""Models whose logits are not their head's, of real architectures: an error, not other statistics."""

from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    ModernBertDecoderConfig,
    MptConfig,
    Qwen3Config,
    RecurrentGemmaConfig,
)

from credit.adapters.heads import find_head, on_hidden_states
from credit.adapters.verl import hidden_states
from credit.adapters.verl.head_check import first_logits, refuse_other_logits

SIZES = {"vocab_size": 50, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
LAYERS = {"num_hidden_layers": 1, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
USUAL = {
    "qwen3": lambda: Qwen3Config(**SIZES, **LAYERS, num_key_value_heads=2),
    "gpt2": lambda: GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=4, **LAYERS),
    "gemma2": lambda: Gemma2Config(
        **SIZES, **LAYERS, head_dim=8, num_key_value_heads=2, final_logit_softcapping=0.3
    ),
    "cohere": lambda: CohereConfig(**SIZES, **LAYERS, logit_scale=0.3),
    "granite": lambda: GraniteConfig(**SIZES, **LAYERS, logits_scaling=3.0),
    "recurrent_gemma": lambda: RecurrentGemmaConfig(
        **SIZES, **LAYERS | {"num_hidden_layers": 3}, num_key_value_heads=1, lru_width=32, logits_soft_cap=0.3
    ),
}
OTHER = {
    "bert": lambda: BertConfig(**SIZES, **LAYERS, is_decoder=True),
    "modernbert-decoder": lambda: ModernBertDecoderConfig(**SIZES, num_hidden_layers=2, pad_token_id=0),
    "mpt, which has a scale and does not use it": lambda: MptConfig(
        vocab_size=50, d_model=32, n_layers=1, n_heads=4, logit_scale=0.3
    ),
}


def run(config, dtype):
    """A model, the output of a forward, and what its head gives."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval().to(dtype)
    captured = []
    with torch.no_grad(), on_hidden_states(model, captured.append):
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        output = model(input_ids=torch.randint(5, 50, (1, 9)))
    return model, output, first_logits(find_head(model), captured[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("make", USUAL.values(), ids=USUAL)
def test_heads_that_are_known_pass(make, dtype):
    model, output, expected = run(make(), dtype)
    refuse_other_logits(model, output, expected)
    rtol, atol = (1e-4, 1e-5) if dtype == torch.float32 else (0.0, 0.01 * expected.abs().max().item())
    torch.testing.assert_close(output.logits[0, 0].float(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("make", OTHER.values(), ids=OTHER)
def test_heads_that_are_not_known_are_refused(make):
    model, output, expected = run(make(), torch.float32)
    with pytest.raises(ValueError, match=f"{type(model).__name__} makes other logits .*divergence=binary"):
        refuse_other_logits(model, output, expected)


def test_autocast_to_16_bits_passes():
    with torch.autocast("cpu", torch.bfloat16):
        model, output, expected = run(USUAL["qwen3"](), torch.float32)
    assert output.logits.dtype == torch.bfloat16
    refuse_other_logits(model, output, expected)


def make_engine(model, ids):
    """What is used of verl's FSDP engine, around a model without FSDP, for one packed row."""
    given = {"input_ids_rmpad_rolled": ids.roll(-1), "temperature_rmpad": torch.ones(len(ids)), "pad_size": 0}
    engine = SimpleNamespace(module=model, device_mesh=None)
    engine.prepare_model_inputs = lambda micro_batch: ({}, given)
    engine.prepare_model_outputs = lambda output, output_args: {}
    engine._gather_and_unpad_packed = lambda values, padding: values

    def forward_step(micro_batch, loss_function, forward_only):
        output = model(input_ids=ids[None])
        return None, {"model_output": engine.prepare_model_outputs(output=output, output_args=given)}

    engine.forward_step = forward_step
    return engine


@pytest.mark.parametrize(("name", "fails"), [("qwen3", False), ("bert", True)])
def test_the_pass_of_an_engine_checks_them_and_leaves_nothing_behind(monkeypatch, name, fails):
    monkeypatch.setattr(hidden_states, "get_device_id", lambda: "cpu")
    model, _, _ = run((USUAL | OTHER)[name](), torch.float32)
    ids = torch.randint(5, 50, (9,))
    engine = make_engine(model, ids)
    before = dict(vars(engine))
    nested = torch.nested.as_nested_tensor([ids], layout=torch.jagged)
    batch = TensorDict({"input_ids": nested}, batch_size=[1])
    names = ("normalized_entropy", "log_probs")
    with hidden_states.collect_statistics(SimpleNamespace(engine=engine), None, batch, names, 256):
        if fails:
            with pytest.raises(ValueError, match="makes other logits"):
                engine.forward_step(batch, loss_function=None, forward_only=True)
        else:
            _, output = engine.forward_step(batch, loss_function=None, forward_only=True)
            expected = model(input_ids=ids[None]).logits[0].log_softmax(-1)
            found = output["model_output"]["credit_log_probs"].values()
            torch.testing.assert_close(found, expected.gather(1, ids.roll(-1)[:, None])[:, 0])
    assert vars(engine) == before
    assert not any(module._forward_hooks for module in model.modules())
