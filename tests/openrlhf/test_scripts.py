"""OpenRLHF's own RL scripts with the estimator changed: trained on a CPU, or refused with the reason."""

import ast
import math
import re
import sys
from pathlib import Path
from typing import NamedTuple

import official_scripts
import pytest
import script_models
import train_on_cpu
from commands import run_to_end

from credit import lens

HERE = Path(__file__).parent


class Case(NamedTuple):
    """A script with an estimator, what is changed for it, and how many ranks each model has."""

    script: str
    estimator: str = "dgpo"
    changes: dict[str, str] = {}
    ranks: int = 1


NO_KL = {"algo__kl__init_coef": "0"}
GROUPS = NO_KL | {"rollout__n_samples_per_prompt": "4", "rollout__batch_size": "4", "data__max_samples": "8"}
LONG = {"data__max_len": "60"}  # two turns
RECORDED = {"credit__record_steps": "1"}
CASES = {
    "dapo": Case("train_dapo_ray_hybrid_engine", ranks=2),
    "ppo_hybrid": Case("train_ppo_ray_hybrid_engine", "credit_gae", NO_KL),
    "ppo_groups": Case("train_ppo_ray_hybrid_engine", "dgpo", GROUPS),
    "ppo_reward_fn": Case("train_ppo_with_reward_fn", "credit_gae", NO_KL),
    "ppo_slurm": Case("train_ppo_ray_slurm", "credit_gae", NO_KL),
    "prorlv2": Case("train_prorlv2_math_hybrid_engine"),
    "baseline": Case("train_prorlv2_math_hybrid_engine", "reinforce_plus_plus_baseline"),
    "flash": Case("train_flash_reinforce_ray_agent_async", "credit_dr_grpo", {"credit__baseline": "batch"}),
    "agent": Case("train_reinforce_baseline_hybrid_engine", changes=LONG | RECORDED, ranks=2),
    "agent_async": Case("train_reinforce_baseline_ray_agent_async", changes=LONG, ranks=2),
    "vision": Case("train_vlm_math_hybrid_engine", changes=RECORDED),
}


def official(name, **changes):
    """The script's flags at its own sizes."""
    flags = official_scripts.read_flags(official_scripts.SCRIPTS[name]) | {"--data.prompt_dataset": ["data"]}
    flags |= {"--" + flag.replace("__", "."): [value] for flag, value in changes.items()}
    return official_scripts.join_flags(flags)


@pytest.mark.parametrize("name", official_scripts.SCRIPTS)
def test_openrlhf_takes_the_scripts_flags_as_they_are(parse, name):
    assert parse(needed=official(name)).credit is None


NO_GROUPS = "with a single response every advantage is 0; set --rollout.n_samples_per_prompt to 2 or more"
SINGLE = {  # scripts with one response per prompt
    *("train_ppo_ray_hybrid_engine", "train_ppo_with_reward_fn", "train_ppo_ray_slurm"),
    "train_flash_reinforce_ray_agent_async",
}
KL_REWARD = "takes one reward per response; set --algo.kl.init_coef 0, or add --algo.kl.use_loss"


@pytest.mark.parametrize(
    ("name", "estimator", "message"),
    [
        ("train_ppo_ray_hybrid_engine", "dgpo", NO_GROUPS),
        ("train_ppo_with_reward_fn", "dgpo", NO_GROUPS),
        ("train_ppo_ray_slurm", "dgpo", NO_GROUPS),
        ("train_flash_reinforce_ray_agent_async", "dgpo", NO_GROUPS),
        ("train_ppo_ray_hybrid_engine", "credit_gae", KL_REWARD),
        ("train_ppo_with_reward_fn", "credit_gae", KL_REWARD),
        ("train_ppo_ray_slurm", "credit_gae", KL_REWARD),
    ],
)
def test_a_script_is_refused_at_its_own_sizes(parse, capsys, name, estimator, message):
    with pytest.raises(SystemExit) as ended:
        parse(needed=official(name, algo__advantage__estimator=estimator))
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("estimator", ["dgpo", "reinforce_plus_plus_baseline", "grpo"])
@pytest.mark.parametrize("name", sorted(set(official_scripts.SCRIPTS) - SINGLE))
def test_every_other_script_is_taken_at_its_own_sizes(parse, name, estimator):
    args = parse(needed=official(name, algo__advantage__estimator=estimator))
    assert args.credit.estimator.name == estimator


def test_single_responses_teach_an_estimator_without_groups(parse):
    changes = {"algo__advantage__estimator": "credit_dr_grpo", "credit__baseline": "batch"}
    args = parse(needed=official("train_flash_reinforce_ray_agent_async", **changes))
    assert args.credit.estimator.baseline == "batch"
    assert args.rollout.n_samples_per_prompt == 1


@pytest.mark.parametrize("name", CASES)
def test_a_small_script_is_taken(parse, place, name):
    case = CASES[name]
    flags = official_scripts.make_small(
        case.script, place, case.ranks, algo__advantage__estimator=case.estimator, **case.changes
    )
    assert parse(needed=flags).credit is not None


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where small models and prompts of text are."""
    path = tmp_path_factory.mktemp("script")
    script_models.save_text_models(path)
    names = ("policy", "reward_model", "data.jsonl")
    files = str(HERE / "script_agent.py"), str(HERE / "script_reward.py")
    return official_scripts.Place(*(str(path / name) for name in names), *files, str(path))


@pytest.fixture(scope="module")
def vision_place(tmp_path_factory, place):
    """Where a small model that reads images and its prompts are."""
    path = tmp_path_factory.mktemp("vision")
    script_models.save_vision_model(path / "policy")
    script_models.save_pictures(path)
    return place._replace(policy=str(path / "policy"), data=str(path / "pictures.jsonl"))


def train(flags, folder):
    """The logged status of every step by its number, and all that was printed."""
    environment = train_on_cpu.make_environment(str(HERE), *sys.path)
    printed = run_to_end([*train_on_cpu.COMMAND, *flags], environment, folder)
    found = re.findall(r"Global step (\d+): (\{.*?\})$", printed, re.M)
    read = {int(step): ast.literal_eval(re.sub(r"\b(nan|inf)\b", "None", text)) for step, text in found}
    return read, printed


RESUMED = ("agent",)
SHOWN = ("dapo", "ppo_hybrid", "vision")  # the others are slow tests
PARAMETERS = [pytest.param(name, marks=() if name in SHOWN else pytest.mark.slow) for name in CASES]


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_script_trains_two_steps(request, tmp_path, name):
    case = CASES[name]
    place = request.getfixturevalue("vision_place" if name == "vision" else "place")
    flags = official_scripts.make_small(
        case.script,
        place._replace(output=str(tmp_path)),
        case.ranks,
        algo__advantage__estimator=case.estimator,
        **case.changes,
    )
    steps, printed = train(flags, tmp_path)
    (tmp_path / "printed.txt").write_text(printed)
    assert list(steps) == list(range(1, len(steps) + 1))
    check_steps(case.estimator, flags, list(steps.values()))
    check_files(flags, tmp_path, len(steps))
    if "--credit.record_steps" in flags:
        check_records(tmp_path, len(steps), images=name == "vision")
    if name in RESUMED:
        check_resuming(flags, tmp_path, len(steps))


def check_steps(estimator, flags, steps):
    assert len(steps) >= 2
    for step in steps:
        assert math.isfinite(step["actor_grad_norm"])
        assert step["actor_grad_norm"] > 0
    if estimator == "dgpo":
        deviations = [step["credit/deviation_max"] for step in steps]
        assert deviations[0] == 0.0
        assert all(later > 0 for later in deviations[1:])
        assert steps[0]["credit/weight_min"] == steps[0]["credit/weight_max"] == 1.0
    if estimator == "credit_gae":
        for step in steps:
            assert math.isfinite(step["critic_loss"])
            assert step["critic_grad_norm"] > 0
    if "--algo.kl.use_loss" in flags and flags[flags.index("--algo.kl.init_coef") + 1] != "0":
        assert steps[0]["kl"] == pytest.approx(0.0, abs=1e-3)
        assert steps[-1]["kl"] > 0  # of OpenRLHF's own reference group, beside ours
    if "--algo.advantage.is_correction_level" in flags:
        assert all(math.isfinite(step["vllm_kl"]) for step in steps)


def check_resuming(flags, folder, done):
    """--ckpt.load_enable goes on after the last step, on the prompts that are left, with the first reference."""
    place = flags.index("--data.max_samples") + 1
    longer = [*flags[:place], str(2 * int(flags[place])), *flags[place + 1 :]]
    steps, printed = train(longer, folder)
    (folder / "printed_2.txt").write_text(printed)
    assert "Loading the checkpoint" in printed
    assert list(steps) == list(range(done + 1, 2 * done + 1))
    assert all(step["credit/deviation_max"] > 0 for step in steps.values())
    check_records(folder, 2 * done)


def check_records(folder, steps, images=False):
    """One record per step, whose prompts are short also where the model sees an image as many tokens."""
    lines = list(lens.read(folder / "trained/credit.jsonl"))
    assert list(dict.fromkeys(line.step for line in lines)) == list(range(1, steps + 1))
    assert all(line.label and line.tokens and line.deviation for line in lines)
    assert {line.prompt.count("<|image_pad|>") for line in lines} == {int(images)}


def check_files(flags, folder, steps):
    """The checkpoints and models that the flags ask for."""
    assert (folder / "trained/model.safetensors").exists()
    if "--ckpt.save_steps" in flags:
        for step in range(1, steps + 1):
            assert (folder / f"checkpoints/_actor/global_step{step}").is_dir()
            assert (folder / f"checkpoints/global_step{step}_hf/model.safetensors").exists()
    if "--eval.dataset" in flags:
        assert list(folder.glob("checkpoints/_actor/best_global_step*"))
