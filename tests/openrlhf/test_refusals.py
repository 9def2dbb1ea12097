"""What the adapter refuses on the command line, with reason and way out, before Ray starts."""

import logging
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

import credit
from credit.adapters import traits
from credit.adapters.hooks import check_functions
from credit.adapters.openrlhf import hooks, options
from credit.adapters.openrlhf.settings import Choice

NAME = "--algo.advantage.estimator"
DGPO = [NAME, "dgpo"]
ICEPOP = {"rollout_rule": "mask", "rollout_floor": 0.5, "rollout_cap": 5.0}


class NeedsBaselines(credit.GRPO):
    """Needs what OpenRLHF does not have."""

    name: Literal["needs_baselines"] = "needs_baselines"

    @property
    def needs(self):
        return ("baseline_rewards",)


class NeedsRollouts(credit.GRPO):
    """Needs the log-probs of the engine that sampled."""

    name: Literal["needs_rollouts"] = "needs_rollouts"

    @property
    def needs(self):
        return ("rollout_log_probs",)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([NAME, "dgop"], "invalid choice: 'dgop' (choose from"),
        (
            [NAME, "group_norm", "--credit.tau", "1"],
            "--credit.tau is set, but --algo.advantage.estimator group_norm",
        ),
        ([NAME, "grpo", "--credit.tau", "1"], "unknown setting 'tau'; GRPO has correction, eps"),
        ([NAME, "grpo", "--credit.preset", "openrhlf"], "unknown preset 'openrhlf'"),
        ([NAME, "grpo", "--credit.reference", "a/model"], "--credit.reference has no effect with grpo"),
        ([*DGPO, "--credit.reference", ""], "--credit.reference is empty; give a checkpoint"),
        ([NAME, "grpo", "--reward.clip_range", "1", "-1"], "--reward.clip_range 1 -1 is no range"),
        ([NAME, "grpo", "--reward.clip_range", "nan", "1"], "--reward.clip_range nan 1 is no range"),
        ([NAME, "grpo", "--rollout.temperature", "nan"], "set a temperature above 0"),
        ([NAME, "grpo", "--credit.tua", "1"], "unrecognized arguments: --credit.tua"),
        ([*DGPO, "--credit.tau", "-1"], "greater than 0"),
        ([*DGPO, "--credit.tau", "hot"], "tau"),
        ([NAME, "mix"], "parts"),
        ([NAME, "needs_baselines"], "needs baseline_rewards, which OpenRLHF does not provide"),
        ([NAME, "needs_rollouts"], "set --algo.advantage.is_correction_level token"),
        ([*DGPO, "--rollout.n_samples_per_prompt", "1"], "set --rollout.n_samples_per_prompt to 2 or more"),
        (
            [NAME, "credit_rloo", "--rollout.n_samples_per_prompt", "1"],
            "with a single response every advantage is 0",
        ),
        ([*DGPO, "--algo.kl.init_coef", "0.01"], "set --algo.kl.init_coef 0, or add --algo.kl.use_loss"),
        ([NAME, "mix", "--credit.parts", '[[1.0, "gdpo"]]'], "mix weighs several rewards"),
        ([*DGPO, "--credit.base", "gdpo"], "dgpo weighs several rewards"),
        ([NAME, "dapo", "--credit.filter_by", "0"], "filter_by=0 of dapo has no effect in OpenRLHF"),
        ([NAME, "gdpo"], "gdpo weighs several rewards, but OpenRLHF passes on one reward per response"),
        (
            [*DGPO, "--actor.policy_loss_type", "gspo"],
            "which cancels the token weights of dgpo; leave it out",
        ),
        ([*DGPO, "--algo.advantage.gamma", "0.9"], "--algo.advantage.gamma has no effect with dgpo"),
        (
            [NAME, "grpo", "--algo.advantage.no_std_norm"],
            "with grpo, which does not whiten over the batch's tokens; leave it out (credit_dr_grpo divides",
        ),
        (
            [NAME, "credit_gae", "--credit.preset", "openrlhf", "--credit.whiten_correction", "0"]
            + ["--algo.advantage.no_std_norm"],
            "whiten_correction=0 has no effect with divide_by_std=False",
        ),
        (
            [NAME, "gtpo", "--reward.clip_range", "-1", "1"],
            "no reward or advantage A_i per response that could be clipped; leave it out",
        ),
        (
            [NAME, "mix", "--credit.parts", '[[1, "grpo"], [1, "gtpo"]]', "--reward.clip_range", "-1", "1"],
            "no effect with mix, which has the part gtpo, which has no reward or advantage A_i per",
        ),
        (
            [*DGPO, "--data.max_images_per_prompt", "1", "--train.dynamic_batch_enable"],
            "--train.dynamic_batch_enable packs the rows, so that vision models lose the positions",
        ),
        (
            [*DGPO, "--data.max_images_per_prompt", "1", "--ds.ring_attn_size", "2"],
            "--ds.ring_attn_size 2 packs the rows",
        ),
    ],
)
def test_it_is_refused_on_the_command_line(parse, capsys, flags, message):
    with pytest.raises(SystemExit) as ended:
        parse(*flags)
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("flags", "estimator"),
    [
        (DGPO, credit.DGPO()),
        ([*DGPO, "--credit.tau", "0.1", "--credit.preset", "openrlhf"], credit.DGPO(tau=0.1, eps=1e-9)),
        ([*DGPO, "--algo.kl.init_coef", "0.01", "--algo.kl.use_loss"], credit.DGPO()),
        ([*DGPO, "--reward.clip_range", "-1", "1"], credit.DGPO()),
        ([*DGPO, "--credit.tau", '{"start": 1, "end": 0.1}'], credit.DGPO(tau={"start": 1, "end": 0.1})),
        ([*DGPO, "--ds.ring_attn_size", "2", "--actor.num_gpus_per_node", "8"], credit.DGPO()),
        ([*DGPO, "--ds.tensor_parallel_size", "2", "--actor.num_gpus_per_node", "8"], credit.DGPO()),
        ([*DGPO, "--data.max_images_per_prompt", "1"], credit.DGPO()),
        ([NAME, "credit_rloo"], credit.RLOO()),
        ([NAME, "reinforce_plus_plus", "--rollout.n_samples_per_prompt", "1"], credit.ReinforcePlusPlus()),
        ([NAME, "needs_rollouts", "--algo.advantage.is_correction_level", "token"], NeedsRollouts()),
        (
            [NAME, "mix", "--credit.parts", '[[0.7, "grpo"], [0.3, {"name": "dgpo", "tau": 0.2}]]'],
            credit.Mix(parts=[(0.7, credit.GRPO()), (0.3, credit.DGPO(tau=0.2))]),
        ),
    ],
)
def test_what_is_not_refused(parse, flags, estimator):
    args = parse(*flags)
    assert args.credit.estimator == estimator
    assert args.algo.advantage.estimator == flags[1]


@pytest.mark.parametrize("name", ["group_norm", "rloo", "dr_grpo"])
def test_openrlhfs_own_estimators_stay_its_own(parse, name):
    args = parse(NAME, name)
    assert args.credit is None
    assert args.algo.advantage.estimator == name


def test_a_plugin_brings_an_estimator(parse, tmp_path, monkeypatch):
    (tmp_path / "my_estimators.py").write_text(
        "from typing import Literal\nimport credit\n\n\n"
        "class Mine(credit.DGPO):\n    name: Literal['mine'] = 'mine'\n    strength: float = 2.0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    args = parse(NAME, "mine", "--credit.plugin", "my_estimators", "--credit.strength", "3")
    assert args.credit.estimator.name == "mine"
    assert args.credit.estimator.strength == 3.0


@pytest.mark.parametrize(
    ("name", "learns"),
    [("grpo", False), ("rloo", False), ("lite_ppo", False), ("max_rl", False), ("pass_at_k", False)]
    + [("dgpo", False), ("top_entropy", False), ("gtpo", False), ("reinforce_plus_plus", True)],
)
def test_single_responses_teach_only_what_has_no_group_baseline(name, learns):
    assert traits.learns_from_single_responses(credit.get(name)) == learns


def report(parse, caplog, *flags):
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="credit"):
        parse(*flags)
    return " ".join(record.getMessage() for record in caplog.records if record.name == "credit")


def test_help_lists_the_flags_of_credit_beside_openrlhfs(parse, capsys):
    with pytest.raises(SystemExit) as ended:
        parse("--help")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "--credit.tau" in printed
    assert "--rollout.n_samples_per_prompt" in printed


def test_differing_loss_options_are_reported(parse, caplog):
    text = report(parse, caplog, NAME, "grpo", "--actor.dual_clip", "3", "--actor.policy_loss_type", "gspo")
    for part in (
        "--actor.loss_agg_mode=token-mean (seq-mean-token-mean)",
        "--actor.dual_clip=3.0 (None)",
        "--actor.policy_loss_type=gspo (ppo)",
    ):
        assert part in text
    assert not report(parse, caplog, *DGPO, "--actor.loss_agg_mode", "seq-mean-token-mean")
    assert "(fixed_horizon)" in report(parse, caplog, NAME, "credit_dr_grpo")


@pytest.mark.parametrize(
    ("loss", "flags", "reported"),
    [
        ({"objective": "sapo"}, [], "no option is known for objective='sapo' of"),
        (ICEPOP, [], "is_correction_level=off (token)"),
        (ICEPOP, ["--algo.advantage.is_correction_level", "token"], ""),
        (
            {"rollout_level": "sequence", "rollout_cap": 5.0},
            [],
            "no option is known for rollout_cap=5.0, rollout_level='sequence' of",
        ),
        (
            {"kl_coefficient": 0.1},
            ["--algo.kl.use_loss", "--algo.kl.init_coef", "0.1"],
            "kl.estimator=k1 (k3)",
        ),
    ],
)
def test_every_setting_of_an_own_loss_is_compared_or_named(parse, caplog, loss, flags, reported):
    """OpenRLHF's flags set the loss, so that only an estimator of the user's has one that is not a default."""
    args = parse(NAME, "grpo", "--actor.loss_agg_mode", "seq-mean-token-mean", *flags)
    caplog.clear()
    options.report_differences(Choice(credit.GRPO(loss=loss)), args)
    text = " ".join(record.getMessage() for record in caplog.records if record.name == "credit")
    assert reported in text
    assert bool(text) == bool(reported)


EXAMPLES = sorted((Path(__file__).parents[2] / "examples/openrlhf/estimators").glob("*.txt"))
LACKING = {
    "dr_grpo": "loss_agg_mode=token-mean (fixed_horizon)",
    "rloo": "loss_agg_mode=token-mean (sequence_sum)",
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_flags_are_those_of_the_papers(parse, caplog, path):
    flags = shlex.split(path.read_text(), comments=True)
    assert parse(*flags).credit.estimator.name == path.stem
    reported = report(parse, caplog, *flags)
    assert reported.count("=") == reported.count(LACKING.get(path.stem, "nothing"))
    assert ("fixed_horizon" in reported or "sequence_sum" in reported) == (path.stem in LACKING)


PRETEND = """
import importlib.metadata as metadata
real = metadata.version
metadata.version = lambda name: {version!r} if name == "openrlhf" else real(name)
import credit.adapters.openrlhf
"""


@pytest.mark.parametrize("version", ["0.9.10", "0.10.3", "0.12.0"])
def test_another_openrlhf_is_refused(version):
    code = PRETEND.format(version=version)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"ImportError: credit supports openrlhf >=0.10.4,<0.12 and found {version}" in done.stderr


def test_a_changed_signature_is_refused_by_name():
    (owner,) = hooks.WORKER
    message = "PolicyModelActor.forward takes .self, sequences, action_mask, .*; credit supports openrlhf"
    with pytest.raises(ImportError, match=message):
        check_functions(hooks.FRAMEWORK, {owner: {"forward": "self sequences"}})


def test_the_functions_of_every_table_are_as_they_were_known():
    check_functions(hooks.FRAMEWORK, hooks.FUNCTIONS)


def test_a_choice_says_what_it_needs():
    assert Choice(credit.DGPO()).statistics == ("deviation", "normalized_entropy")
    assert Choice(credit.DGPO()).compares
    assert Choice(credit.TopEntropy()).statistics == ("normalized_entropy",)
    assert not Choice(credit.TopEntropy()).compares
    assert not Choice(credit.GRPO()).statistics
