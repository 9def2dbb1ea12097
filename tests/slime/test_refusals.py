"""What cannot work with an estimator, each with its message, before a model is loaded."""

import pytest
import slime_batch
from slime_actor import HERE, Actor, make_args

import credit
from credit.adapters import slime
from credit.adapters.slime import options, settings, sources

PACKAGE = slime_batch.PACKAGE
SAMPLES = slime_batch.make_samples()
HOOKED = slime_batch.HOOKED
ROUTES = {"use_routing_replay": True, "use_rollout_routing_replay": True}


def check(name, given=(), **changed):
    """Refuses as the check at start-up does."""
    args = slime_batch.name_args(name, SAMPLES, given, **changed)
    options.refuse(settings.read_estimator(args), args)


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        (
            "dgpo",
            {},
            "dgpo needs deviation, normalized_entropy, and slime loads no reference; set kl_coef to any",
        ),
        ("dgpo", {"kl_coef": 0.1}, "dgpo needs deviation, .* does not compute; set --custom-megatron-before"),
        ("dgpo", HOOKED | {"ref_load": None}, "dgpo compares the policy with a reference; set --ref-load"),
        (
            "dgpo",
            HOOKED | {"rollout_top_p": 0.9},
            "--rollout-top-p 0.9 has slime train .* nucleus.* set it to 1",
        ),
        (
            "dgpo",
            HOOKED | {"allgather_cp": True, "context_parallel_size": 2},
            "--allgather-cp .*; leave it out",
        ),
        ("dgpo", HOOKED | ROUTES, "--use-rollout-routing-replay .* equal models would deviate in dgpo"),
        (
            "dgpo",
            HOOKED | {"use_rollout_logprobs": True},
            "slime skips the policy's pass; leave out --use-rollout-logprobs$",
        ),
        (
            "dgpo",
            HOOKED | {"advantage_estimator": "gspo"},
            "--advantage-estimator gspo gives all tokens .* one r",
        ),
        ("entropy_shaped", {}, "entropy_shaped needs normalized_entropy, and slime skips the policy's pass"),
        (
            "entropy_shaped",
            {"kl_coef": 0.1},
            "needs normalized_entropy; set --custom-megatron.*, or --use-rollou",
        ),
        (
            "entropy_shaped",
            {"kl_coef": 0.1, "use_rollout_entropy": True, "padded_vocab_size": 48},
            "slime's is over 48 logits, of which 4 are padding; set --custom-megatron-before-log-prob-hook-path",
        ),
        ("delightful", {}, "delightful needs log_probs, and slime skips the policy's pass"),
        (
            "grpo",
            {"rewards_normalization": True},
            "slime normalizes the rewards by group before grpo .* set --disa",
        ),
        ("grpo", {"normalize_advantages": True}, "--normalize-advantages whitens what grpo has computed"),
        ("grpo", {"compute_advantages_and_returns": False}, "so grpo would never run; leave it out"),
        ("grpo", {"loss_type": "sft_loss"}, "--loss-type sft_loss reads no advantages"),
        ("grpo", {"advantage_estimator": "ppo"}, "--advantage-estimator ppo has slime train a critic"),
        ("grpo", {"use_critic": True}, "--advantage-estimator ppo has slime train a critic"),
        (
            "grpo",
            {"global_batch_size": 5},
            "--global-batch-size 5 does not divide the 16 rollouts of a batch",
        ),
        (
            "entropy_shaped",
            {"kl_coef": 0.1, "use_rollout_entropy": True, "padded_vocab_size": 48, "vocab_size": None},
            "--vocab-size is not set, .* set it, or --custom-megatron-before-log-prob-hook-path",
        ),
        ("grpo", {"n_samples_per_prompt": 1}, "set --n-samples-per-prompt to 2 or more"),
        ("dapo", {}, "set --dynamic-sampling-filter-path credit.adapters.slime.keep_group"),
        (
            "opd",
            {"kl_coef": 0.1, "use_opd": True},
            "--use-opd adds the teacher's term .* set --opd-kl-coef 0",
        ),
        ("remax", {}, "remax needs baseline_rewards, which slime does not provide"),
        ("gdpo", {}, "gdpo weighs several rewards, but slime passes on one reward per sample"),
        ("hicra", {}, "hicra needs extra.planning, which slime does not provide$"),
        ("mt_grpo", {}, "mt_grpo needs token_rewards, which slime does not provide$"),
    ],
)
def test_options_that_cannot_work(name, changed, message):
    with pytest.raises(ValueError, match=message):
        check(name, **changed)


SCHEDULE = {"tau": {"start": 1.0, "end": 0.1}}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"release_train": True},
            "a setting of dgpo is a schedule, and --release-train .* give the setting a nu",
        ),
        ({"start_rollout_id": None}, "slime does not tell .* set --start-rollout-id"),
    ],
)
def test_schedules_where_the_process_does_not_know_how_far_it_is(changed, message):
    with pytest.raises(ValueError, match=message):
        check("dgpo", SCHEDULE, **HOOKED, **changed)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("dgpo", HOOKED),
        ("dgpo", HOOKED | {"kl_coef": 0.0, "use_kl_loss": True, "keep_old_actor": True}),
        ("dgpo", HOOKED | {"kl_coef": 0.0, "use_kl_loss": True, "global_batch_size": 8}),
        ("dgpo", HOOKED | {"allgather_cp": True}),
        ("grpo", {"rollout_top_p": 0.9, "allgather_cp": True, "context_parallel_size": 2}),
        ("grpo", {"rewards_normalization": True, "custom_reward_post_process_path": "my.function"}),
        ("grpo", {"rewards_normalization": True, "advantage_estimator": "reinforce_plus_plus"}),
        ("grpo", {"advantage_estimator": "gspo"}),
        ("grpo", {"use_rollout_logprobs": True}),
        ("entropy_shaped", {"kl_coef": 0.1, "use_rollout_entropy": True, "padded_vocab_size": 44}),
        ("entropy_shaped", HOOKED | ROUTES),
        ("opd", {"kl_coef": 0.1, "use_opd": True, "opd_kl_coef": 0.0}),
        ("dapo", {"dynamic_sampling_filter_path": f"{PACKAGE}.keep_group"}),
        ("reinforce_plus_plus", {"n_samples_per_prompt": 1, "global_batch_size": 4}),
    ],
)
def test_options_that_work(name, changed):
    check(name, **changed)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        (
            "dgpo",
            {"name": "grpo"},
            "names dgpo, and `credit` in the file of --custom-config-path grpo; leave",
        ),
        ("dgpo", {"tua": 1}, "tua"),
        ("advantages", {"tau": 1.0}, "there is none; add `credit: {name: dgpo}`"),
        ("dgpo", {"record_path": "x"}, "record_path is set, and nothing is recorded; set record_steps"),
        ("dgpo", {"record_steps": 0}, "record_steps is 0; expected a whole number, 1 or more"),
        ("dgpo", {"record_steps": True}, "record_steps is True; expected a whole number, 1 or more"),
    ],
)
def test_settings_in_the_file(name, given, message):
    args = slime_batch.name_args(name, SAMPLES, given)
    with pytest.raises(ValueError, match=message):
        settings.read_estimator(args), settings.read_own(args)


def test_the_file_names_the_estimator_or_the_path_does():
    by_path = slime_batch.name_args("dgpo", SAMPLES, {"tau": 0.05, "record_steps": 3})
    by_file = slime_batch.name_args("advantages", SAMPLES, {"name": "dgpo", "tau": 0.05})
    assert settings.read_estimator(by_path) == settings.read_estimator(by_file) == credit.DGPO(tau=0.05)
    assert settings.read_own(by_path).record_steps == 3


@pytest.mark.parametrize(
    ("given", "changed", "message"),
    [
        ({"record_steps": 1}, {}, "record_steps is set, and --save is not; set record_path, or --save"),
        (
            {"record_steps": 1},
            {"save": "x", "release_train": True},
            "--release-train starts .* leave one of the",
        ),
    ],
)
def test_records_that_have_no_place_or_no_number(megatron, given, changed, message):
    with pytest.raises(ValueError, match=message):
        slime.check(slime_batch.name_args("grpo", SAMPLES, given, **changed))


def test_an_object_of_the_users_own_and_another_choice(megatron):
    hooks = slime.Hooks("grpo")
    with pytest.raises(ValueError, match="-path is not set, .* name the `advantages` of the same Hooks"):
        hooks.check(slime_batch.name_args("", SAMPLES, custom_advantage_function_path=None))
    given = {"custom_advantage_function_path": "my_run.advantages"}
    with pytest.raises(
        ValueError, match="`credit` in the file .* is {'tau': 0.1}, .* leave one of the two out"
    ):
        hooks.check(slime_batch.name_args("", SAMPLES, {"tau": 0.1}, **given))
    with pytest.raises(ValueError, match="record_steps stand in `credit`"):
        slime.Hooks(record_steps=3)
    with pytest.raises(ValueError, match="record_path is set, and nothing is recorded"):
        slime.Hooks("grpo", record_path="x")
    hooks.check(slime_batch.name_args("", SAMPLES, **given))


def test_functions_have_the_names_of_estimators():
    assert slime.dgpo == slime.advantages
    with pytest.raises(AttributeError, match="has no 'dgop'; it has advantages, .* dgpo"):
        slime.dgop  # noqa: B018


def test_another_function_than_credits_is_named(megatron):
    args = slime_batch.name_args("dgpo", SAMPLES, custom_advantage_function_path="their.function")
    with pytest.raises(
        ValueError, match="is their.function, .*; set it to one of credit's functions, such as"
    ):
        slime.check(args)


def test_options_that_slime_does_not_have(megatron):
    args = slime_batch.name_args("grpo", SAMPLES)
    del args.release_train
    with pytest.raises(
        ValueError, match="slime's arguments have no release_train; credit supports slime >=0.3.1"
    ):
        slime.check(args)


def test_the_check_comes_before_a_model(megatron):
    args = slime_batch.name_args("dgpo", SAMPLES, custom_megatron_init_path=f"{PACKAGE}.check")
    with pytest.raises(ValueError, match="slime loads no reference"):
        Actor(args, None, None)


def test_the_shipped_file_works():
    args = make_args(HERE / "credit.yaml", vocab_size=44, rollout_batch_size=4, global_batch_size=16)
    estimator = settings.read_estimator(args)
    assert estimator == credit.DGPO(tau=0.1)
    options.refuse(estimator, args)
    assert sources.list_scored(estimator, args) == (
        "deviation",
        "normalized_entropy",
        "extra.entropy",
        "extra.kl",
    )


def test_loss_options_that_differ_are_named(caplog):
    args = slime_batch.name_args("dapo", SAMPLES, eps_clip_high=0.2)
    options.report_differences(credit.DAPO(), args)
    (record,) = caplog.records
    assert "--eps-clip-high=0.2 (0.28)" in record.getMessage()
    assert "the loss's mean=the mean over rollouts (--calculate-per-token-loss)" in record.getMessage()
    caplog.clear()
    options.report_differences(credit.GRPO(), slime_batch.name_args("grpo", SAMPLES))
    assert not caplog.records
