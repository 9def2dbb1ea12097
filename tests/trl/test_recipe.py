"""DAPO as one setting, and its parts one by one."""

import logging

import pytest
import torch
from trl import TrlParser

import credit
from credit.adapters.trl import CreditGRPOConfig

CPU = {"output_dir": "/tmp", "use_cpu": True, "bf16": False}


def test_the_recipe_is_the_whole_paper():
    args = CreditGRPOConfig(**CPU, recipe="dapo", max_completion_length=20480)
    assert (args.advantage_estimator, args.loss_type, args.beta) == ("dapo", "dapo", 0.0)
    assert (args.epsilon, args.epsilon_high) == (0.2, 0.28)
    assert (args.dynamic_sampling, args.mask_truncated_completions) == ("resample", True)
    assert args.overlong_cache_length == 4096


def test_without_it_trls_defaults_stand():
    args = CreditGRPOConfig(**CPU)
    assert args.mask_truncated_completions is False
    assert (args.advantage_estimator, args.epsilon_high, args.overlong_cache_length) == (None, None, None)


@pytest.mark.parametrize("source", ["python", "flags", "yaml"])
def test_the_users_options_win(tmp_path, source):
    wanted = {"mask_truncated_completions": False, "epsilon_high": 0.2, "dynamic_sampling": "none",
              "overlong_cache_length": 0, "advantage_estimator": "dgpo"}  # fmt: skip
    if source == "python":
        args = CreditGRPOConfig(**CPU, recipe="dapo", **wanted)
    else:
        every = CPU | {"recipe": "dapo"} | wanted
        if source == "yaml":
            path = tmp_path / "run.yaml"
            path.write_text("".join(f"{name}: {str(value).lower()}\n" for name, value in every.items()))
            flags = ["--config", str(path)]
        else:
            flags = [word for name, value in every.items() for word in (f"--{name}", str(value))]
        (args,) = TrlParser(CreditGRPOConfig).parse_args_and_config(flags)
    assert {name: getattr(args, name) for name in wanted} == wanted


def test_what_differs_from_the_recipe_is_reported(make_trainer, caplog):
    with caplog.at_level(logging.WARNING, logger="credit"):
        make_trainer(recipe="dapo", dynamic_sampling="filter", epsilon_high=0.3)
    (record,) = [r for r in caplog.records if r.name == "credit"]
    assert "epsilon_high=0.3 (0.28)" in record.getMessage()
    assert "dynamic_sampling=filter (resample)" in record.getMessage()
    caplog.clear()
    make_trainer(recipe="dapo")
    assert not [r for r in caplog.records if r.name == "credit" and r.levelname == "WARNING"]


def test_the_recipe_trains(train):
    trainer, log = train(recipe="dapo", mask_truncated_completions=False, max_steps=2)
    assert isinstance(trainer.credit_estimator, credit.DAPO)
    assert log[1]["credit/sampling_rounds"] >= 1
    assert log[1]["rewards/overlong_penalty/mean"] < 0


def test_overlong_completions_lose_reward(train):
    seen = []

    def good(completion_ids, **_):
        seen.append([len(ids) for ids in completion_ids])
        return [None, *[1.0] * (len(completion_ids) - 1)]

    settings = {"overlong_max_length": 12, "overlong_cache_length": 8, "max_steps": 1, "reward": good}
    functions = settings["reward"] = [good]
    trainer, log = train("grpo", **settings)
    assert functions == [good]
    expected = credit.overlong_penalty(torch.tensor(seen[0]), 12, 8)
    assert expected.unique().numel() > 1
    penalties = torch.tensor(trainer._logs["rewards"]["overlong_penalty"])
    assert penalties[0].isnan()  # as a completion that nothing scored
    assert torch.equal(penalties[1:], expected[1:])
    assert log[0]["reward"] == pytest.approx((1 + expected[1:]).mean().item())
    assert log[0]["credit/invalid_rows"] == 1


def test_groups_live_by_correctness_and_not_by_length(train):
    settings = {
        "overlong_cache_length": 8,
        "max_steps": 1,
        "reward": lambda completions, **_: [1.0] * len(completions),
    }
    _, log = train("dapo", **settings)
    assert log[0]["credit/dropped_groups"] == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "dpao"}, "unknown recipe 'dpao'; known: dapo"),
        ({"overlong_cache_length": 300, "max_completion_length": 256}, r"expected 1\.\.256"),
        ({"overlong_max_length": 100}, "overlong_cache_length is not"),
        ({"overlong_max_length": 1000, "overlong_cache_length": 100}, "begins after 900 tokens"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CreditGRPOConfig(**CPU, **settings)
