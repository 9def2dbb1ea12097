"""What is refused before a model is loaded, what is let through, and the lines of log at the start."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Literal

import pytest
from swift.pipelines import sft_main

import credit
from credit.adapters.swift import choice, layout, options, train_with
from credit.adapters.swift.trainer import CreditGRPOTrainer

DGPO = credit.DGPO(tau=0.05)


REFUSED = {
    "another estimator": ({"advantage_estimator": "rloo"}, "--advantage_estimator rloo is another way"),
    "rlsd": (
        {"advantage_reweight": "rlsd", "rlsd_lambda": 0.5},
        "--advantage_reweight rlsd is another way to give tokens their advantages than dgpo",
    ),
    "sdar": ({"sdar_loss_coef": 0.1}, "--sdar_loss_coef 0.1 is another way"),
    "a teacher's server": (
        {"teacher_model_server": "http://localhost:1"},
        "--teacher_model or --teacher_model_server",
    ),
    "kl in the reward": ({"kl_in_reward": "true"}, "--kl_in_reward true has no effect with dgpo, which gets"),
    "no scaling": ({"scale_rewards": "none"}, "--scale_rewards none contradicts dgpo.*dr_grpo"),
    "scaling by the batch": ({"scale_rewards": "batch"}, "--scale_rewards batch contradicts dgpo.*lite_ppo"),
    "scaling of each reward": ({"scale_rewards": "gdpo"}, "--scale_rewards gdpo contradicts dgpo.*gdpo"),
    "one ratio per response": (
        {"importance_sampling_level": "sequence"},
        "--importance_sampling_level sequence gives all tokens.*sequence_token",
    ),
    "the loss real": ({"loss_type": "real"}, "--scale_rewards none contradicts dgpo"),
    "greedy sampling": ({"temperature": 0}, "--temperature 0.0 samples greedily"),
    "ray": ({"use_ray": "true"}, "--use_ray true builds the trainer in other processes"),
    "evaluation of split sequences": (
        {
            "sequence_parallel_size": 2,
            "eval_strategy": "steps",
            "val_dataset": "own",
            "num_generations_eval": 1,
        },
        "with --sequence_parallel_size 2 ms-swift evaluates a part of the completions",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_cannot_work_are_refused_before_a_model_is_loaded(check, models, name):
    changed, message = REFUSED[name]
    given = {key: models / "data.jsonl" if value == "own" else value for key, value in changed.items()}
    with pytest.raises(ValueError, match=message):
        check(**given)


def test_liger_is_refused_where_tokens_differ(check):
    """ms-swift's own check asks for liger-kernel, which needs a GPU; so the option is set behind it."""
    args = check()
    args.use_liger_kernel = True
    with pytest.raises(
        ValueError, match="--use_liger_kernel true averages the advantages.*token weights of dgpo"
    ):
        options.refuse(DGPO, args)
    options.refuse(credit.GRPO(), args)


def test_the_loss_real_is_refused_where_tokens_differ(check):
    args = check()
    args.loss_type = "real"
    with pytest.raises(ValueError, match="--loss_type real averages the advantages"):
        options.refuse(DGPO, args)


ESTIMATORS = {
    "remax": ("remax", "remax needs baseline_rewards, which ms-swift does not provide"),
    "a part of a mix": (
        credit.Mix(parts=[(1.0, credit.get("gdpo")), (1.0, credit.GRPO())]),
        "passes on one reward per completion",
    ),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_that_cannot_be_fed_are_refused(check, name):
    estimator, message = ESTIMATORS[name]
    with pytest.raises(ValueError, match=message):
        check(estimator)


def test_log_probs_of_the_engine_need_vllm(check):
    class Sampled(credit.Estimator):
        name: Literal["sampled_of_swift"] = "sampled_of_swift"

        @property
        def needs(self):
            return ("rollout_log_probs",)

    with pytest.raises(ValueError, match="sampled_of_swift needs rollout_log_probs.*--use_vllm true"):
        check(Sampled())


def test_weights_of_rewards_are_given_once(check):
    estimator = credit.get("gdpo", reward_weights=[1.0, 0.5])
    given = {"reward_funcs": ["digits", "letters"], "reward_weights": [1, 1]}
    with pytest.raises(ValueError, match="--reward_weights is given, and gdpo has its own"):
        check(estimator, **given)


LET_THROUGH = [
    {"importance_sampling_level": "sequence_token"},
    {"scale_rewards": "group"},
    {"loss_type": "dapo", "epsilon_high": 0.28},
    {"off_policy_sequence_mask_delta": 0.1},
    {"top_entropy_quantile": 0.5},
    {"kl_in_reward": "true", "beta": 0},
    {"dynamic_sample": "true"},
    {"overlong_filter": "true"},
]


@pytest.mark.parametrize("changed", LET_THROUGH)
def test_options_that_can_work_are_the_users(check, changed):
    check(**changed)


@pytest.mark.parametrize("estimator", [credit.get("dr_grpo"), credit.get("rloo")])
def test_an_agreeing_scaling_is_let_through(check, estimator):
    check(estimator, beta=0.04, scale_rewards="none")


def test_a_data_set_for_a_teacher_is_refused(train, models, tmp_path):
    lines = (models / "data.jsonl").read_text().splitlines()
    path = tmp_path / "taught.jsonl"
    path.write_text("".join(line[:-1] + ', "teacher_prompt": "the answer"}\n' for line in lines))
    with pytest.raises(ValueError, match="column 'teacher_prompt' makes ms-swift distil from a teacher"):
        train(DGPO, dataset=path)
    with pytest.raises(
        ValueError, match="a teacher_prompt or teacher_images of the data makes ms-swift distil"
    ):
        train(DGPO, dataset=path, streaming="true", max_steps=1)


def test_other_training_is_refused(check, command, models, monkeypatch):
    with pytest.raises(
        ValueError, match="for `swift rlhf --rlhf_type grpo`, and this run is --rlhf_type gkd"
    ):
        check(rlhf_type="gkd", reward_funcs=None, num_generations=None)
    given = ["--model", models / "model", "--dataset", models / "data.jsonl", "--use_hf", "true"]
    given += ["--model_type", "qwen2", "--template", "qwen2_5", "--check_model", "false"]
    with pytest.raises(ValueError, match="and this run is no RLHF"):
        sft_main(list(map(str, given)))


def test_megatrons_command_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "swift.megatron", ModuleType("swift.megatron"))
    with pytest.raises(RuntimeError, match="this is ms-swift's Megatron command"):
        train_with("grpo")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"estimator": "dgpoo"}, "unknown estimator"),
        ({"estimator": {"name": "dgpo", "tau": -1}}, "tau"),
        ({"estimator": "grpo", "record_steps": 0}, "record_steps is 0; expected a whole number"),
        ({"estimator": "grpo", "record_completions": 0}, "record_completions is 0"),
        ({"estimator": "grpo", "record_path": "a.jsonl"}, "record_path is set, and nothing is recorded"),
        (
            {"estimator": "grpo", "statistics_memory_mb": 0},
            "statistics_memory_mb is 0; expected a positive number",
        ),
    ],
)
def test_wrong_settings_are_errors_of_the_plugin(monkeypatch, given, message):
    monkeypatch.setattr(choice, "_chosen", [])
    with pytest.raises(ValueError, match=message):
        train_with(**given)


def test_one_estimator_is_named(monkeypatch):
    monkeypatch.setattr(choice, "_chosen", [])
    train_with("dgpo")
    train_with(credit.DGPO())  # a data loader's worker runs the plugin again
    message = r"called before with dgpo\(\), and now with dgpo\(tau=0.05\), or .* start another process"
    with pytest.raises(ValueError, match=message):
        train_with(DGPO)


def test_a_trainer_without_an_estimator_says_so(monkeypatch):
    monkeypatch.setattr(choice, "_chosen", [])
    with pytest.raises(RuntimeError, match="call credit.adapters.swift.train_with"):
        CreditGRPOTrainer()


def test_ring_attention_is_refused(monkeypatch):
    """ms-swift takes it where the heads cannot be divided by the ranks; it needs flash attention."""
    trainer = SimpleNamespace(template=SimpleNamespace(sequence_parallel_size=4))
    for ranks, rings in ((4, 1), (2, 2)):
        monkeypatch.setattr(layout.sequence_parallel, "sp_world_size", ranks)
        monkeypatch.setattr(layout.sequence_parallel, "rp_world_size", rings)
        if rings == 1:
            layout.refuse_rings(trainer)
        else:
            with pytest.raises(ValueError, match="--sequence_parallel_size 4 is more than .* use 2"):
                layout.refuse_rings(trainer)


def test_the_log_names_the_estimator_and_the_loss_options_that_differ(train, caplog):
    train(DGPO, beta=0.04, max_steps=1)
    lines = [record.getMessage() for record in caplog.records if record.name == "credit"]
    assert any(
        line.startswith("ms-swift trains with dgpo: tau=0.05 (default 0.5)") and "hidden states" in line
        for line in lines
    )
    assert any(
        "ms-swift's loss options are used as they are" in line and "beta=0.04 (0.0)" in line for line in lines
    )


def test_a_run_by_the_papers_options_has_nothing_to_report(train, caplog):
    train("dapo", beta=0, loss_type="dapo", epsilon_high=0.28, max_steps=1)
    assert not [line for line in caplog.messages if "loss options are used as they are" in line]
