"""What the adapter takes for granted of TRL, in whichever of its releases is installed."""

import ast
import importlib
import warnings
from pathlib import Path

import pytest
import trl

import credit.adapters.trl
from credit.adapters.hooks import check_framework
from credit.adapters.trl import CreditGRPOTrainer, hooks

pytestmark = pytest.mark.releases
ADAPTER = Path(credit.adapters.trl.__file__).parent


def test_the_functions_and_options_are_those_of_the_table():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_framework(hooks.FRAMEWORK, hooks.FUNCTIONS)


def test_the_asynchronous_trainer_is_there_from_1_10_on():
    if trl.__version__.startswith("1.9."):
        with pytest.raises(ImportError, match="credit supports trl >=1.10,<.* and found 1.9.*; pip install"):
            importlib.import_module("credit.adapters.trl.async_grpo")
    else:
        importlib.import_module("credit.adapters.trl.async_grpo")  # which checks its functions


def list_attributes():
    """The attributes that the adapter reads of a trainer: of `trainer`, and of `self` in the mixin."""
    for path in ADAPTER.glob("*.py"):
        names = ("trainer", "self") if path.stem == "trainer" else ("trainer",)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", None) in names:
                yield node.attr


def test_a_trainer_has_the_attributes_that_the_adapter_reads(make_trainer):
    trainer, names = make_trainer("dgpo"), set(list_attributes())
    assert {"_tokenizer", "_metrics", "shuffle_dataset", "num_generations_eval"} <= names
    lacking = sorted(name for name in names if not hasattr(trainer, name))
    assert not lacking, f"{CreditGRPOTrainer.__name__} has no {', '.join(lacking)}"
