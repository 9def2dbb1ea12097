"""ms-swift's real trainer on a tiny model: advantages in its loss against float64, and its own GRPO's."""

import numpy as np
import pytest
import torch
from swift_oracle import found_advantages, largest_gap, make_rollouts

import credit

CLOSE = 2e-5  # of advantages up to 10: float32 forwards against float64
EACH_ONCE = {"policy": 1, "reference": 1}
LORA = {"tuner_type": "lora", "target_modules": "all-linear"}
ESTIMATORS = {
    "dgpo": credit.DGPO(tau=0.05),
    "entropy_shaped": credit.get("entropy_shaped"),
    "gtpo": credit.get("gtpo"),
    "grpo_s": credit.get("grpo_s"),
    "reinforce_plus_plus": credit.get("reinforce_plus_plus", kl_coefficient=0.1),
    "mix": credit.Mix(parts=[(0.7, credit.GRPO()), (0.3, credit.DGPO(tau=0.1))]),
}


def check_batches(witness, estimator, temperature=1.0):
    """The witnessed advantages are the oracle's, and not all zero."""
    gaps = [largest_gap(estimator, batch, temperature) for batch in witness.batches]
    assert max(gaps) < CLOSE
    assert all(
        np.abs(each.advantages.numpy()).max() > 0.1 for batch in witness.batches for each in batch.grpo
    )


@pytest.mark.parametrize("name", ESTIMATORS)
def test_advantages_are_those_of_float64_forwards(train, name):
    check_batches(train(ESTIMATORS[name], beta=0.04), ESTIMATORS[name])


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("tuner", ["full", "lora", "named reference"])
def test_the_reference_is_ms_swifts_with_and_without_a_kl_term(train, models, tuner, beta):
    estimator, options = credit.DGPO(tau=0.05), {"beta": beta, "temperature": 0.7}
    if tuner == "lora":
        options |= LORA
    if tuner == "named reference":
        options |= {"ref_model": models / "reference", "ref_model_type": "qwen2"}
    witness = train(estimator, **options)
    check_batches(witness, estimator, temperature=0.7)
    dropout = tuner == "lora"  # which ms-swift has by default
    assert witness.passes() == (EACH_ONCE | {"policy": 2} if dropout else EACH_ONCE)
    first = witness.metric("credit/deviation_max")[0]
    assert first > 0.01 if tuner == "named reference" else first == 0.0


def test_the_first_step_is_grpo_and_later_ones_are_not(train):
    witness = train(credit.DGPO(tau=0.05), beta=0.04)
    for name, start in (("deviation_max", 0.0), ("weight_std", 0.0), ("effective_token_fraction", 1.0)):
        first, second = witness.metric(f"credit/{name}")
        assert first == start
        assert abs(second - start) > 0.05
    plain = [make_rollouts(batch) for batch in witness.batches]
    grpo = [credit.GRPO()(rollouts).advantages for rollouts in plain]
    found = [
        found_advantages(batch, each.shape[1]) for batch, each in zip(witness.batches, grpo, strict=True)
    ]
    assert np.abs(found[0] - grpo[0]).max() < CLOSE
    assert np.abs(found[1] - grpo[1]).max() > 0.5


def test_a_small_memory_takes_more_slices_and_gives_the_same(train):
    witness = train(credit.DGPO(tau=0.05), credit_settings={"statistics_memory_mb": 0.001}, beta=0)
    check_batches(witness, credit.DGPO(tau=0.05))


def test_dropout_does_not_make_the_policy_deviate_from_itself(train):
    options = LORA | {"lora_dropout": 0.5, "beta": 0.04, "max_steps": 3}
    estimator = credit.DGPO(tau=0.05)
    witness = train(estimator, **options)
    assert witness.metric("credit/deviation_max")[0] == 0.0
    assert witness.metric("credit/deviation_max")[2] > 0.0
    check_batches(witness, estimator)
    # ms-swift's own log-probs, by which its loss divides, keep their dropout: here they are not the statistics'.
    batch = witness.batches[-1]
    scored = make_rollouts(batch).log_probs
    theirs = batch.grpo[0].old_per_token_logps[batch.grpo[0].completion_mask].numpy()
    ours = scored[: len(batch.masks[0])][make_rollouts(batch).mask[: len(batch.masks[0])]]
    assert np.abs(theirs - ours).max() > 1e-3


@pytest.mark.parametrize("tuner", [{}, LORA])
def test_noise_on_embeddings_does_not_make_the_policy_deviate_from_itself(train, tuner):
    """NEFTune's, which is there in training only."""
    estimator = credit.DGPO(tau=0.05)
    witness = train(estimator, neftune_noise_alpha=5, beta=0, **tuner)
    assert witness.metric("credit/deviation_max")[0] == 0.0
    check_batches(witness, estimator)


@pytest.mark.parametrize("options", [{"loss_type": "fipo"}, {"off_policy_sequence_mask_delta": 0.1}])
def test_losses_that_ms_swift_takes_for_a_teachers_train(train, options):
    """ms-swift 4.6 itself ends there, since it takes a run without a teacher for one that distils from itself."""
    with pytest.raises(ValueError, match="does not support"):
        train(beta=0, max_steps=1, **options)
    check_batches(train(credit.DGPO(tau=0.05), beta=0, **options), credit.DGPO(tau=0.05))


PAIRS = {
    "grpo": ({"scale_rewards": None}, credit.get("grpo", preset="ms-swift")),
    "rloo": ({"advantage_estimator": "rloo", "kl_in_reward": "false"}, credit.get("rloo")),
    "dr_grpo": ({"scale_rewards": "none"}, credit.get("dr_grpo")),
    "batch": ({"scale_rewards": "batch"}, credit.get("lite_ppo", preset="ms-swift")),
    "gdpo": (
        {"scale_rewards": "gdpo", "reward_funcs": ["digits", "constant"]},
        credit.get("gdpo", correction=1, eps=1e-8),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_with_its_constants_training_is_ms_swifts_own(train, name):
    options, estimator = PAIRS[name]
    functions = {"reward_funcs": options["reward_funcs"]} if "reward_funcs" in options else {}
    theirs, ours = train(**options), train(estimator, **functions)
    for their_batch, our_batch in zip(theirs.batches, ours.batches, strict=True):
        for their_part, our_part in zip(their_batch.grpo, our_batch.grpo, strict=True):
            mask = their_part.completion_mask
            assert torch.equal(mask, our_part.completion_mask)
            assert their_part.advantages[mask].abs().max() > 0.01
            torch.testing.assert_close(
                our_part.advantages[mask], their_part.advantages[mask], rtol=0, atol=5e-6
            )
    torch.testing.assert_close(ours.weights(), theirs.weights(), rtol=0, atol=1e-5)


def test_without_an_estimator_ms_swift_is_as_without_the_adapter(train):
    """After runs with an estimator in the same process, its own trainer trains, and logs nothing of credit."""
    train(credit.DGPO(tau=0.05))
    witness = train(beta=0.04)
    assert witness.passes() == EACH_ONCE
    assert type(witness.trainer).__module__ == "swift.rlhf_trainers.grpo_trainer"
    assert not any(name.startswith("credit/") for line in witness.logs for name in line)
