"""Options of OpenRLHF that do nothing beside an estimator: an error where they mislead, else one line."""

import logging
import shlex

import pytest

NAME = "--algo.advantage.estimator"
DGPO = [NAME, "dgpo"]
GRPO = [NAME, "grpo"]
REFERENCE = "--algo.kl.use_loss --algo.kl.init_coef 0.1"
TWO = "--actor.model_name_or_path a/model --reward.model_name_or_path a/reward --vllm.num_engines 1 "
TWO += "--rollout.n_samples_per_prompt 4 --algo.kl.init_coef 0"  # a reward model in place of a function


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("grpo --algo.advantage.lambd 0.95", "lambd has no effect with grpo, which takes its settings from"),
        ("grpo --algo.advantage.gamma 0.9", "gamma has no effect with grpo, which takes its settings from"),
        ("reinforce_plus_plus --algo.advantage.gamma 0.9", "from --credit.*; set --credit.gamma"),
        (
            "credit_gae --algo.advantage.lambd 0.95",
            "no effect with gae, which takes its settings from --credit.*; set --credit.lam",
        ),
        (
            "grpo --critic.model_name_or_path a/critic",
            "with grpo, which trains no critic; leave it out, or use credit_gae",
        ),
        ("dgpo --critic.save_value_network", "--critic.save_value_network has no effect with dgpo"),
        (
            "grpo --critic.freezing_steps 2",
            "no critic, and the actor would stand still for those steps; leave",
        ),
        ("grpo --rollout.temperature 0", "all responses to a prompt equal, and OpenRLHF's models divide"),
        ("grpo --rollout.temperature -0.5", "set a temperature above 0"),
        (
            "grpo --reward.overlong_buffer_len 32 --rollout.max_new_tokens 16",
            "the part of --rollout.max_new_tokens 16 in",
        ),
        (
            "grpo --reward.overlong_buffer_len 64 --data.max_len 48",
            "buffer_len 64 is the part of --data.max_len 48 in",
        ),
        ("grpo --reward.stop_properly_penalty_coef 2", "a factor in 0..1, or a negative reward for them"),
        ("dgpo --credit.tau 1 --credit.tau 2", "--credit.tau is given twice, 1 and 2"),
    ],
)
def test_what_misleads_is_refused(parse, capsys, flags, message):
    with pytest.raises(SystemExit) as ended:
        parse(NAME, *flags.split())
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.fixture
def lines(parse, caplog):
    """What is logged of a command that is not refused, but for the loss options."""

    def run(flags, **named):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="credit"):
            parse(*shlex.split(flags), **named)
        texts = [record.getMessage() for record in caplog.records if record.name == "credit"]
        return [text for text in texts if "loss options" not in text]

    return run


OFF = "is_correction_level is off"
GSPO = "--actor.policy_loss_type gspo --algo.advantage.is_correction_level token"


@pytest.mark.parametrize(
    ("flags", "listed"),
    [
        ("--critic.adam.lr 1e-5", "--critic.adam.lr (no critic is trained)"),
        ("--critic.num_nodes 2 --critic.max_norm 2", "--critic.max_norm, --critic.num_nodes (no critic is"),
        ("--train.colocate_critic_reward", "--train.colocate_critic_reward (no critic is trained)"),
        ("--reward.normalize_enable", "--reward.normalize_enable (no reward model runs)"),
        (
            "--reward.model_name_or_path a/b --reward.offload",
            "--reward.model_name_or_path, --reward.offload (no",
        ),
        ("--train.agent_func_path a.py", "--reward.remote_url (the agent gives the rewards)"),
        (
            "--algo.kl.use_loss --algo.kl.estimator k2",
            "kl.estimator, --algo.kl.use_loss (--algo.kl.init_coef is 0)",
        ),
        ("--ref.num_nodes 2 --ref.offload", "--ref.num_nodes, --ref.offload (--algo.kl.init_coef is 0)"),
        (f"{REFERENCE} --algo.kl.horizon 5", "--algo.kl.horizon (--algo.kl.target is not set)"),
        ("--reward.overlong_penalty_factor 0.5", "penalty_factor (--reward.overlong_buffer_len is not set)"),
        ("--reward.overlong_buffer_len 0", "--reward.overlong_buffer_len (a buffer of no tokens)"),
        ("--algo.dynamic_filtering_range 0.1 0.9", "range (--algo.dynamic_filtering_enable is not set)"),
        ("--algo.advantage.is_correction_threshold 0.2 2", f"threshold (--algo.advantage.{OFF})"),
        ("--algo.advantage.is_correction_mode clip", f"mode (--algo.advantage.{OFF})"),
        (
            f"{GSPO} --algo.advantage.is_correction_threshold 2",
            "threshold (--actor.policy_loss_type is gspo)",
        ),
        ("--actor.eps_clip 0.1 --actor.eps_clip_low_high 0.2 0.2", "--actor.eps_clip (--actor.eps_clip_low_"),
    ],
)
def test_what_is_harmless_is_one_line(lines, flags, listed):
    (line,) = lines(f"{NAME} grpo {flags}")
    assert line.startswith("without effect with grpo: --")
    assert listed in line


def test_all_of_them_are_in_one_line(lines):
    (line,) = lines(
        f"{NAME} credit_rloo --critic.adam.lr 1e-5 --reward.normalize_enable --credit.preset openrlhf"
    )
    reasons = "(no critic is trained); --reward.normalize_enable (no reward model runs); --credit.preset (it "
    assert reasons in line
    assert line.startswith("without effect with rloo: ")


@pytest.mark.parametrize(
    "flags",
    [
        "grpo --critic.num_gpus_per_node 8 --critic.adam.lr 9e-6 --critic.adam.betas 0.9 0.95",  # defaults
        "grpo --algo.advantage.gamma 1.0 --algo.advantage.lambd 1",
        "credit_gae --critic.adam.lr 1e-5 --critic.freezing_steps 3 --critic.save_value_network",
        "credit_gae --reward.normalize_enable --train.colocate_critic_reward",
        "dgpo --ref.offload",  # of the reference in the policy's workers
        f"grpo {REFERENCE} --ref.num_nodes 2 --ref.offload --algo.kl.estimator k3",
        f"grpo {REFERENCE} --algo.kl.target 6 --algo.kl.horizon 5",
        "grpo --reward.overlong_buffer_len 4 --reward.overlong_penalty_factor 0.5",
        "grpo --reward.overlong_buffer_len 16 --rollout.max_new_tokens 16",
        "grpo --reward.stop_properly_penalty_coef -0.5",
        "grpo --algo.dynamic_filtering_enable --algo.dynamic_filtering_range 0.1 0.9",
        "grpo --algo.advantage.is_correction_level token --algo.advantage.is_correction_threshold 0.2 2",
        "grpo --credit.preset openrlhf",
        "group_norm --critic.adam.lr 1e-5 --rollout.temperature 0 --reward.overlong_buffer_len 99999",
    ],
)
def test_what_has_an_effect_is_no_line(lines, flags):
    assert not lines(f"{NAME} {flags}")


def test_options_of_a_reward_model_that_runs_are_no_line(lines):
    flags = f"{NAME} grpo --reward.normalize_enable --reward.num_nodes 2 --reward.offload"
    assert not lines(flags, needed=TWO.split())


@pytest.mark.parametrize(
    ("flags", "twice"),
    [
        ("", "weights and forward pass"),
        ("--ds.lora.rank 4", "forward pass"),
        ("--ds.lora.rank 4 --credit.reference a/b", "weights and forward pass"),
    ],
)
def test_a_second_reference_is_one_line(lines, flags, twice):
    (line,) = lines(f"{NAME} dgpo {REFERENCE} {flags}")
    assert f"so that a reference's {twice} are paid for twice; --algo.kl.init_coef 0 leaves" in line
    assert not lines(f"{NAME} top_entropy {REFERENCE}")
    (line,) = lines(f"{NAME} dgpo --algo.kl.use_loss")
    assert "--algo.kl.use_loss (--algo.kl.init_coef is 0)" in line
