"""The reference: the model, what the user names, or the policy without what its adapter has learned."""

from types import SimpleNamespace

import pytest
from swift.arguments import RLHFArguments
from swift.utils import parse_args

import credit
from credit.adapters.swift import choice, pipeline

DGPO = credit.DGPO(tau=0.05)


def test_the_reference_is_the_model_or_what_the_user_names(check, models):
    args = check(beta=0)
    assert (args.ref_model, args.ref_model_type) == (str(models / "model"), "qwen2")
    args = check(beta=0, ref_model=models / "reference", ref_model_type="qwen2")
    assert args.ref_model == str(models / "reference")


@pytest.mark.parametrize("beta", [0, 0.04])
def test_with_lora_a_reference_model_is_refused(check, models, beta):
    """With a KL term by ms-swift itself."""
    given = {"tuner_type": "lora", "ref_model": models / "reference", "beta": beta}
    with pytest.raises(
        ValueError, match="--ref_model .* is for --tuner_type full|does not require a ref_model"
    ):
        check(**given)


def test_arguments_from_before_train_with_are_refused_where_their_reference_is_lost(command, monkeypatch):
    monkeypatch.setattr(choice, "_chosen", [])
    for beta, message in ((0, "these arguments were made before train_with was called"), (0.04, None)):
        args = parse_args(RLHFArguments, command(beta=beta))[0]
        vars(args).pop(pipeline.REFERENCE, None)  # of a process in which train_with was called before
        made = SimpleNamespace(args=args)
        if message is None:
            pipeline._prepare(made, DGPO)
        else:
            with pytest.raises(ValueError, match=message):
                pipeline._prepare(made, DGPO)


def test_without_a_comparison_no_reference_is_loaded(train):
    assert train(credit.get("entropy_shaped"), beta=0, max_steps=1).trainer.ref_model is None


def test_weights_that_train_beside_the_adapter_are_refused(train):
    lora = {"tuner_type": "lora", "target_modules": "all-linear", "lora_bias": "all"}
    with pytest.raises(ValueError, match="bias trains outside of the adapter.*--lora_bias none"):
        train(DGPO, beta=0, **lora)
    train("grpo", beta=0, max_steps=1, **lora)


@pytest.mark.parametrize(
    "tuner",
    [
        {"tuner_type": "lora", "target_modules": "all-linear", "modules_to_save": ["lm_head"]},
        {"tuner_type": "lora", "target_modules": "all-linear", "use_dora": "true"},
        {"tuner_type": "adalora", "target_modules": "all-linear"},
        {"tuner_type": "vera", "target_modules": ["q_proj", "o_proj"]},
    ],
)
def test_tuners_whose_weights_are_left_out_have_a_reference(train, tuner):
    witness = train(DGPO, beta=0, max_steps=2, learning_rate=1e-2, **tuner)
    first, second = witness.metric("credit/deviation_max")
    assert first == 0.0
    assert second > 0.0


def test_a_reference_that_is_another_model_is_reported(train, models):
    """An adapter that began with trained weights: without it the policy is another model."""
    lora = {"tuner_type": "lora", "target_modules": "all-linear", "beta": 0}
    first = train(DGPO, save_strategy="steps", save_steps=2, learning_rate=1e-2, **lora)
    adapters = first.output / "checkpoint-2"
    with pytest.warns(UserWarning, match="before the first step the policy deviates.*--ref_adapters"):
        train(DGPO, adapters=adapters, output_dir=first.output / "second", max_steps=1, **lora)
    named = train(DGPO, adapters=adapters, ref_adapters=adapters, output_dir=first.output / "third", **lora)
    assert named.metric("credit/deviation_max")[0] == 0.0


def test_a_head_with_an_adapter_is_refused(train):
    with pytest.raises(ValueError, match="lm_head"):
        train(DGPO, tuner_type="lora", target_modules=["q_proj", "lm_head"], beta=0)
