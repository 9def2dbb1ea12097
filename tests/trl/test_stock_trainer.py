"""Mistakes that trained something else without a word, or failed with another's message."""

import inspect

import peft
import pytest
import tiny_model
from trl import GRPOConfig, GRPOTrainer
from trl.experimental.gmpo import GMPOTrainer

from credit.adapters.trl import CreditGRPOConfig, CreditMixin
from credit.adapters.trl.hooks import FUNCTIONS


@pytest.mark.parametrize("kind", [GRPOTrainer, GMPOTrainer])
@pytest.mark.parametrize(
    ("settings", "ignored"),
    [
        ({"estimator": "dgpo"}, "advantage_estimator='dgpo'"),
        ({"recipe": "dapo"}, "advantage_estimator='dapo'"),
        ({"overlong_cache_length": 4}, "overlong_cache_length=4"),
    ],
)
def test_a_trainer_that_would_ignore_the_estimator_is_refused(make_trainer, kind, settings, ignored):
    with pytest.raises(TypeError, match=f"^{kind.__name__} would ignore {ignored} .*; use CreditGRPOTrainer"):
        make_trainer(kind=kind, config=CreditGRPOConfig, model="no/model", **settings)


def test_a_config_without_an_estimator_goes_with_any_trainer(make_trainer):
    make_trainer(kind=GRPOTrainer)
    make_trainer(kind=GRPOTrainer, config=GRPOConfig)


def test_trls_signature_is_still_seen():
    expected = FUNCTIONS["trl.trainer.grpo_trainer:GRPOTrainer"]["__init__"].split()
    assert list(inspect.signature(GRPOTrainer.__init__).parameters) == expected


def test_the_mixin_over_a_trainer_is_named_as_the_way_out(make_trainer):
    class Users(GRPOTrainer):
        pass

    with pytest.raises(TypeError, match=r"or class Mine\(CreditMixin, Users\)"):
        make_trainer("grpo", kind=Users)
    make_trainer("grpo", kind=type("Mine", (CreditMixin, Users), {}))


def test_a_model_without_a_path_needs_a_reference(make_trainer):
    tokenizer = tiny_model.character_tokenizer()
    given = {"model": tiny_model.small_qwen2(len(tokenizer), hidden_size=32, layers=1)}
    alone = {"processing_class": tokenizer}
    with pytest.raises(
        ValueError, match=r"dgpo compares .* this model has none; give the trainer ref_model="
    ):
        make_trainer("dgpo", extra=alone, **given)
    make_trainer("grpo", extra=alone, **given)
    reference = tiny_model.small_qwen2(len(tokenizer), hidden_size=32, layers=1)
    make_trainer("dgpo", extra=alone | {"ref_model": reference}, **given)
    make_trainer("dgpo", extra=alone | {"peft_config": peft.LoraConfig(task_type="CAUSAL_LM")}, **given)


def test_the_mixin_behind_the_trainer_is_refused(make_trainer):
    """Its methods would not run, and the estimator would be ignored."""
    kind = type("Behind", (GRPOTrainer, CreditMixin), {})
    with pytest.raises(TypeError, match="Behind would ignore .*list CreditMixin before the trainer"):
        make_trainer("dgpo", kind=kind, model="no/model")


def test_a_reference_that_is_no_other_model_is_refused(make_trainer):
    with pytest.raises(TypeError, match="ref_model is 'some/path', a str; expected a model"):
        make_trainer("dgpo", model="no/model", extra={"ref_model": "some/path"})
    model = tiny_model.small_qwen2(12, hidden_size=32, layers=1)
    with pytest.raises(ValueError, match="ref_model is the model that trains"):
        make_trainer("dgpo", model=model, extra={"ref_model": model})
    assert all(parameter.requires_grad for parameter in model.parameters())
