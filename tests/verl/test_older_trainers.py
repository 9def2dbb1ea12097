"""verl's trainers before V1: checked when they get their config, and fed with what their passes compute."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from verl.experimental.fully_async_policy.fully_async_rollouter import FullyAsyncRollouter
from verl.experimental.fully_async_policy.fully_async_trainer import FullyAsyncTrainer
from verl.experimental.one_step_off_policy.ray_trainer import OneStepOffRayTrainer
from verl.protocol import DataProto
from verl.trainer.ppo.ray_trainer import RayPPOTrainer, compute_advantage

import credit
from credit.adapters.verl import rollouts

TRAINERS = [
    RayPPOTrainer,
    OneStepOffRayTrainer,
    *(each.__ray_metadata__.modified_class for each in (FullyAsyncTrainer, FullyAsyncRollouter)),
]
DGPO, GRPO = "algorithm.adv_estimator=credit_dgpo", "algorithm.adv_estimator=credit_grpo"
TOP_ENTROPY = "algorithm.adv_estimator=credit_top_entropy"
BINARY = [DGPO, "+algorithm.credit.divergence=binary", "+algorithm.credit.kappa=0"]


@pytest.fixture(autouse=True)
def no_step_is_left():
    yield
    rollouts.set_step(None)


def start(kind, config):
    """Builds the trainer as verl does until it needs more than its config."""
    try:
        return kind(config=config, tokenizer=None, **({} if "Rollouter" in kind.__name__ else MORE))
    except (AssertionError, AttributeError, KeyError, TypeError) as error:
        return error


MORE = {"role_worker_mapping": {}, "resource_pool_manager": None}


@pytest.mark.parametrize("kind", TRAINERS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([GRPO, "algorithm.norm_adv_by_std_in_grpo=False"], "leave it out .credit_dr_grpo does not scale"),
        ([GRPO, "algorithm.gamma=0.9"], "gamma=0.9 has no effect with credit_grpo"),
        ([GRPO, "actor_rollout_ref.rollout.n=1"], "set actor_rollout_ref.rollout.n to 2 or more"),
        ([GRPO, "actor_rollout_ref.rollout.temperature=0"], "temperature is 0"),
        ([GRPO, "+algorithm.credit.tau=1"], "unknown setting 'tau'"),
        (["algorithm.adv_estimator=credit_dgop"], "unknown estimator 'credit_dgop'"),
        ([DGPO], "needs token statistics, which .* does not compute; add trainer.use_v1=True trainer.v1"),
        (BINARY, "needs log-probs of the reference, which .* does not run"),
        (
            [*BINARY, "+algorithm.credit.tau={start:1,end:0.1}", "actor_rollout_ref.actor.use_kl_loss=True"],
            "needs progress, which .* does not hand to estimators; set trainer.use_v1=True",
        ),
        (["algorithm.adv_estimator=credit_hicra"], "needs extra.planning, which .* not hand to estimators"),
    ],
)
def test_it_is_refused_before_anything_is_loaded(configured, kind, overrides, message):
    with pytest.raises(ValueError, match=message):
        start(kind, configured(*overrides))


@pytest.mark.parametrize("kind", TRAINERS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("estimator", ["grpo", "credit_grpo", "credit_top_entropy"])
def test_what_is_not_refused_goes_on_as_verl_does(configured, kind, estimator):
    error = start(kind, configured(f"algorithm.adv_estimator={estimator}"))
    assert isinstance(error, Exception)  # of a model that is missing, or data


def data(rows=4, length=3):
    mask = torch.ones(rows, length)
    mask[1, 2] = 0
    rewards = torch.zeros(rows, length)
    rewards[:, 0] = torch.tensor([1.0, 0.0, 0.0, 3.0])
    uid = np.array(list("aabb"), dtype=object)
    return DataProto.from_dict(
        {"token_level_rewards": rewards, "response_mask": mask}, non_tensors={"uid": uid}
    )


@pytest.fixture
def passes(monkeypatch):
    """What verl's passes return, in place of those passes."""
    generator = torch.Generator().manual_seed(0)
    old, other, entropy = (torch.rand(4, 3, generator=generator) for _ in range(3))
    arrays = {"old_log_probs": -old, "entropys": entropy}
    result = DataProto.from_dict(arrays), 0.0
    monkeypatch.setattr(RayPPOTrainer, "_compute_old_log_prob", lambda self, batch: result)
    reference = DataProto.from_dict({"ref_log_prob": -other})
    monkeypatch.setattr(RayPPOTrainer, "_compute_ref_log_prob", lambda self, batch: reference)
    size = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=8))
    model = SimpleNamespace(hf_config=size)
    monkeypatch.setattr("credit.adapters.verl.passes.omega_conf_to_dataclass", lambda config: model)
    return {"old": -old, "reference": -other, "normalized_entropy": entropy / np.log(8)}


def step(trainer, config):
    """One step of a trainer, as far as advantages go."""
    batch = data()
    old, _ = trainer._compute_old_log_prob(batch)
    assert "entropys" in old.batch  # verl's own metrics read it
    trainer._compute_ref_log_prob(batch)
    name = config.algorithm.adv_estimator
    return compute_advantage(batch, name, config=config.algorithm).batch["advantages"]


def rollouts_of(batch, **fields):
    rewards, mask = batch.batch["token_level_rewards"].sum(dim=-1), batch.batch["response_mask"]
    return credit.Rollouts(rewards, torch.tensor([0, 0, 1, 1]), mask, **fields)


@pytest.mark.parametrize("kind", [RayPPOTrainer, OneStepOffRayTrainer])
def test_the_entropy_of_verls_pass_reaches_the_estimator(configured, passes, kind):
    config = configured(TOP_ENTROPY)
    trainer = object.__new__(kind)
    trainer.config = config
    expected = credit.TopEntropy()(rollouts_of(data(), normalized_entropy=passes["normalized_entropy"]))
    torch.testing.assert_close(step(trainer, config), expected.advantages)


def test_log_probs_of_both_models_give_the_binary_deviation(configured, passes):
    config = configured(*BINARY, "actor_rollout_ref.actor.use_kl_loss=True")
    trainer = object.__new__(RayPPOTrainer)
    trainer.config = config
    deviation = credit.binary_deviation(passes["old"], passes["reference"])
    expected = credit.DGPO(kappa=0)(rollouts_of(data(), deviation=deviation))
    torch.testing.assert_close(step(trainer, config), expected.advantages)
    assert expected.weights.std() > 0


def test_a_config_without_our_estimators_is_left_alone(configured):
    trainer = object.__new__(RayPPOTrainer)
    with pytest.raises(AttributeError, match="config"):
        _ = trainer.config
    trainer.config = config = configured("algorithm.adv_estimator=grpo")
    assert trainer.config is config
    assert "_compute_old_log_prob" not in vars(trainer)


@pytest.mark.parametrize(
    ("name", "options", "groups", "message"),
    [
        ("credit_grpo", {"norm_adv_by_std_in_grpo": False}, "aabb", "norm_adv_by_std_in_grpo=False"),
        ("credit_grpo", {"gamma": 0.5}, "aabb", "gamma=0.5 has no effect"),
        ("credit_grpo", {}, "abcd", "compares the responses to a prompt"),
    ],
)
def test_a_trainer_of_ones_own_is_checked_at_its_first_call(name, options, groups, message):
    batch = data()
    batch.non_tensor_batch["uid"] = np.array(list(groups), dtype=object)
    with pytest.raises(ValueError, match=message):
        compute_advantage(batch, name, config={"adv_estimator": name, "credit": None, **options})


def test_bypass_mode_takes_the_rollouts_log_probs_for_the_old_ones(configured, passes):
    bypass = "algorithm.rollout_correction.bypass_mode=True"
    config = configured(*BINARY, "actor_rollout_ref.actor.use_kl_loss=True", bypass)
    trainer = object.__new__(RayPPOTrainer)
    trainer.config = config
    for shift in (0.0, 1.0):  # no step gets what an earlier one had
        batch = data()
        batch.batch["old_log_probs"] = passes["old"] - shift
        trainer._compute_ref_log_prob(batch)
        deviation = credit.binary_deviation(passes["old"] - shift, passes["reference"])
        expected = credit.DGPO(kappa=0)(rollouts_of(data(), deviation=deviation)).advantages
        found = compute_advantage(batch, "credit_dgpo", config=config.algorithm).batch["advantages"]
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", ["the same trainer", "a second trainer"])
def test_nothing_of_an_earlier_config_is_left(configured, passes, kind):
    trainer = object.__new__(RayPPOTrainer)
    trainer.config = configured(TOP_ENTROPY)
    trainer._compute_old_log_prob(data())  # and no estimator is called
    trainer = trainer if kind == "the same trainer" else object.__new__(RayPPOTrainer)
    trainer.config = config = configured(GRPO)
    torch.testing.assert_close(step(trainer, config), credit.GRPO()(rollouts_of(data())).advantages)


def test_statistics_serve_one_call(configured, passes):
    trainer = object.__new__(RayPPOTrainer)
    trainer.config = config = configured(TOP_ENTROPY)
    step(trainer, config)
    with pytest.raises(ValueError, match="needs normalized_entropy, which this trainer does not hand to"):
        compute_advantage(data(), "credit_top_entropy", config=config.algorithm)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (RayPPOTrainer, "which trainer.use_v1=False does not compute; .*trainer_mode=credit_sync"),
        (OneStepOffRayTrainer, "which the OneStepOffRayTrainer of verl .*trainer_mode=credit_separate_async"),
    ],
)
def test_a_subclass_is_told_of_the_trainer_that_it_extends(configured, base, message):
    with pytest.raises(ValueError, match=message):
        start(type("Mine", (base,), {"__module__": "mine"}), configured(DGPO))
