"""Estimators that read log-probs: where a model excludes a token, and that they teach what they say."""

import numpy as np
import pytest
from running import run

import credit
from credit import GRPO, OPD, RLSD, Rollouts
from credit.estimators.prepare import prepare_rollouts

INF = float("inf")


def one_token_each(log_probs, teacher, rewards=(1, 0), **fields):
    """Responses of one token; each two follow one prompt."""
    columns = {"log_probs": log_probs, "reference_log_probs": teacher}
    columns = {name: np.array(values, np.float32)[:, None] for name, values in columns.items()}
    rows = len(log_probs)
    rewards = np.resize(np.array(rewards, np.float32), rows)
    return Rollouts(rewards, np.arange(rows) // 2, np.ones((rows, 1), bool), **columns, **fields)


def test_a_token_that_a_model_excludes_has_a_finite_log_ratio(library):
    batch = one_token_each([-INF, -1, -INF, -1], [-1, -INF, -INF, -1], rewards=(0,))
    alone = OPD(teacher="reference", outcome_weight=0)
    found = run(library, alone, batch)
    np.testing.assert_allclose(found.advantages[:, 0], [1e12, -1e12, 0, 0], rtol=1e-6)
    assert all(np.isfinite(value) for value in found.metrics.values())
    bounded = alone.model_copy(update={"largest_log_ratio": 5.0})
    np.testing.assert_array_equal(run(library, bounded, batch).advantages[:, 0], [5, -5, 0, 0])


def test_a_mix_adds_distillation_to_any_estimator():
    rng = np.random.default_rng(0)
    batch = one_token_each(-rng.exponential(size=8), -rng.exponential(size=8))
    alone = OPD(teacher="reference", outcome_weight=0)
    mixed = credit.Mix(parts=[(1.0, GRPO()), (0.5, alone)])(batch).advantages
    whole = OPD(teacher="reference", teacher_weight=0.5)(batch).advantages
    np.testing.assert_allclose(mixed, whole, rtol=1e-6)


@pytest.mark.parametrize("preset", ["trl", "ms-swift", "verl", "openrlhf", "skyrl"])
def test_a_preset_leaves_out_the_constants_of_a_baseline_that_is_not_there(preset):
    alone = credit.get("opd", preset=preset, outcome_weight=0)
    assert credit.parse(alone.model_dump()) == alone == OPD(outcome_weight=0)
    assert credit.get("opd", preset=preset).eps == credit.get("grpo", preset=preset).eps
    part = {"name": "opd", "outcome_weight": 0}
    assert credit.get("mix", preset=preset, parts=[[1, part]]).parts[0][1] == alone


def test_the_expected_gradient_is_that_of_the_kl_and_a_penalty_on_states_has_none():
    """Every token of a vocabulary once, weighed by its probability: no sampling noise is left."""
    logits = np.random.default_rng(0).normal(size=(2, 7))

    def log_softmax(x):
        return x - np.log(np.exp(x).sum())

    def kl(policy):
        log_p, log_q = log_softmax(policy), log_softmax(logits[1])
        return np.exp(log_p) @ (log_p - log_q)

    log_p, log_q = map(log_softmax, logits)
    score = np.eye(7) - np.exp(log_p)  # row v: the gradient of log p_v in the logits
    batch = one_token_each(log_p.tolist(), log_q.tolist(), rewards=(0,))
    advantages = OPD(teacher="reference")(batch).advantages[:, 0]
    step = 1e-5 * np.eye(7)
    slope = [(kl(logits[0] + each) - kl(logits[0] - each)) / 2e-5 for each in step]
    np.testing.assert_allclose((np.exp(log_p) * advantages) @ score, -np.array(slope), atol=1e-6)
    np.testing.assert_allclose((np.exp(log_p) * -kl(logits[0])) @ score, 0, atol=1e-12)


def test_rlsd_clips_what_a_model_excludes(library):
    batch = one_token_each([-INF, -INF, -1, -1, -INF, -INF], [-1, -1, -INF, -INF, -INF, -INF])
    found = run(library, RLSD(teacher="reference", mixing=1.0), batch)
    np.testing.assert_allclose(found.weights[:, 0], [1.2, 0.8, 0.8, 1.2, 1, 1], rtol=1e-6)
    assert np.isfinite(found.advantages).all()
    wide = RLSD(teacher="reference", mixing=1.0, clip=1e15)
    np.testing.assert_allclose(run(library, wide, batch).weights[:, 0], [1e15, 0, 0, 1e15, 1, 1], rtol=1e-5)


def test_rlsd_equals_the_public_implementations():
    """Written anew from the authors' code and ms-swift's, whole arrays in torch, on their own test's inputs."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    teacher, student = torch.randn(2, 4, 6) - 3
    mask = torch.ones(4, 6)
    mask[0, 4:] = mask[2, 5:] = 0
    rewards, groups = torch.tensor([1.0, -2.0, 0.0, -0.3]), torch.tensor([0, 0, 0, 0])
    for mixing in (0.0, 0.5, 1.0):
        estimator = RLSD(mixing=mixing)
        batch = Rollouts(rewards, groups, mask, log_probs=student, extra={"teacher_log_probs": teacher})
        base = estimator.advantages(prepare_rollouts("rlsd", batch, estimator.needs))[:, None]
        ratio = torch.exp(torch.sign(base) * (teacher - student) * mask)
        theirs = base * (1 - mixing + mixing * ratio.clamp(0.8, 1.2)) * mask
        torch.testing.assert_close(estimator(batch).advantages, theirs, rtol=0, atol=1e-6)


def test_rlsd_may_let_go_of_its_teacher():
    batch = one_token_each([-1, -1], [-0.5, -0.5], progress=np.array(0.5, np.float32))
    scheduled = RLSD(teacher="reference", mixing={"start": 1.0, "end": 0.0})
    np.testing.assert_allclose(
        scheduled(batch).advantages, RLSD(teacher="reference")(batch).advantages, rtol=1e-6
    )
    with pytest.raises(ValueError, match=r"1.5 is not in \[0, 1\]"):
        RLSD(mixing={"start": 1.5, "end": 0})


def test_a_token_of_probability_zero_is_a_delight_or_nothing(library):
    batch = one_token_each([-INF, -INF, -1e30, -1e30, -INF, -INF], [0] * 6, rewards=(1, 0, 1, 0, 1, 1))
    found = run(library, credit.Delightful(), batch)
    np.testing.assert_array_equal(found.weights[:, 0], [1, 0, 1, 0, 0.5, 0.5])
    assert np.isfinite(found.advantages).all()


@pytest.mark.parametrize("name", ["reinforce_plus_plus", "gae"])
def test_a_token_that_both_models_exclude_has_no_penalty(name):
    """-inf - -inf would be NaN, which whitening would spread over the batch."""
    estimator = credit.get(name, kl_coefficient=0.1)
    extra = {"values": np.zeros((4, 1), np.float32)}
    excluded, sure = (one_token_each([p, -1, -2, -1], [p, -2, -1, -1], extra=extra) for p in (-INF, 0))
    np.testing.assert_array_equal(estimator(excluded).advantages, estimator(sure).advantages)
    lone = one_token_each([-1, -1, -2, -1], [-INF, -2, -1, -1], extra=extra)
    assert np.isfinite(estimator(lone).advantages).all()


def test_adapters_see_what_distillation_does():
    pytest.importorskip("torch")
    from credit.adapters import traits

    for estimator in (OPD(), OPD(outcome_weight=0), OPD(teacher="reference")):
        assert traits.learns_from_single_responses(estimator)
        assert traits.differs_between_tokens(estimator)
    assert traits.differs_between_tokens(RLSD())
    assert not traits.learns_from_single_responses(RLSD())
