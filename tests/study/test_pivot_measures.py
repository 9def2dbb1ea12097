"""The arms' weights, the measures of a gradient, and what the findings make of records."""

from dataclasses import replace

import pytest
import torch
from estimator_study import models
from pivot_study import findings, gradients, work, writing
from pivot_study.arms import ARMS, Seen
from pivot_study.drift import LEVELS, Regime, align, describe, drift, find_auc
from pivot_study.policy import Cell, compute_log_probs, compute_loss, copy, respond, warm_up
from pivot_study.training import train

import credit

CELL = Cell("slots", "wide")
pytestmark = pytest.mark.filterwarnings("ignore:effective_fraction is missed")


def make_model(seed):
    model = models.initial(CELL.shape, torch.Generator().manual_seed(seed))
    return {name: 0.5 * p for name, p in model.items()}


@pytest.fixture(scope="module")
def seen():
    generator = torch.Generator().manual_seed(0)
    policy, half_way, reference = (make_model(seed) for seed in range(3))
    responses = respond(CELL, policy, 2, generator)
    responses.rewards[:5] = 1.0  # an untrained model earns nothing
    return Seen(CELL, responses, policy, half_way, reference, generator)


@pytest.mark.parametrize("arm", ARMS)
def test_weights_average_one(seen, arm):
    weights = ARMS[arm](seen)
    torch.testing.assert_close(weights.mean(1), torch.ones(32), atol=1e-4, rtol=0)
    assert float(weights.min()) >= 0.0


def test_arms_are_what_they_are_called(seen):
    pivots = seen.responses.pivots
    assert float(ARMS["oracle"](seen)[~pivots].max()) == 0.0
    assert find_auc(ARMS["oracle"](seen), seen.responses) == 1.0
    assert find_auc(ARMS["grpo"](seen), seen.responses) == pytest.approx(0.5)
    plain, shuffled = ARMS["dgpo half"](seen), ARMS["dgpo half, shuffled"](seen)
    torch.testing.assert_close(plain.sort(1).values, shuffled.sort(1).values)
    assert not torch.equal(plain, shuffled)
    for arm in ("dgpo half", "deviation half", "relative half", "entropy half"):
        fraction = 1.0 / ARMS[arm](seen).square().mean(1)
        torch.testing.assert_close(fraction, torch.full((32,), 0.5), atol=0.02, rtol=0)


def test_gradients_of_all_arms_are_those_of_their_losses(seen):
    weights = [ARMS["grpo"](seen), ARMS["oracle"](seen)]
    found = gradients.differentiate(CELL, seen.policy, seen.responses, weights)
    for own, each in zip(found, weights, strict=True):
        leaves = {name: p.clone().requires_grad_() for name, p in seen.policy.items()}
        log_probs = compute_log_probs(CELL, leaves, seen.responses)
        compute_loss(log_probs, seen.responses.advantages, each).backward()
        torch.testing.assert_close(own, torch.cat([p.grad.flatten() for p in leaves.values()]))


def test_cosine_and_noise_are_those_of_known_gradients():
    torch.manual_seed(0)
    truth = torch.zeros(2000)
    truth[0] = 2.0
    noise = torch.randn(400, 2000) * 0.1  # of norm 4.47
    found = gradients.summarize(truth + noise, truth, float(truth @ truth))
    assert found["snr"] == pytest.approx(4.0 / 20.0, rel=0.05)
    assert found["cosine"] == pytest.approx(2.0 / 24.0**0.5, rel=0.02)
    away = gradients.summarize(noise, truth, 4.0)
    assert abs(away["cosine"]) < 0.01
    assert abs(away["snr"]) < 0.01


def test_alignment_sees_whether_the_weighted_tokens_moved_with_the_reward(seen):
    moved = seen.statistics.log_probs - seen.statistics.reference_log_probs
    with_it = (seen.responses.advantages * moved > 0).float() + 1e-3
    against = (seen.responses.advantages * moved < 0).float() + 1e-3
    rollouts = seen.responses.rollouts(**seen.statistics._asdict())
    metric = credit.GRPO()(rollouts).metrics["drift_alignment"]
    assert align(ARMS["grpo"](seen), seen) == pytest.approx(float(metric), abs=1e-5)
    assert align(with_it, seen) > 0.3
    assert align(against, seen) < -0.3


def test_a_drift_stops_at_levels_in_order_and_describes_what_it_finds(monkeypatch):
    reference = make_model(0)
    reward = lambda prompts, ids: (ids[:, 12] > 28).float()  # noqa: E731
    cell = Cell("slots", "wide")
    monkeypatch.setattr("pivot_study.policy.TASKS", {"slots": replace(cell.task, reward=reward)})
    points = list(drift(cell, reference, Regime(2, 1e-2, 30), torch.Generator().manual_seed(0)))
    assert points
    assert [point.level for point in points] == sorted({point.level for point in points})
    assert {point.level for point in points} <= set(LEVELS)
    found = describe(cell, reference, points[-1], torch.Generator().manual_seed(1))
    assert max(found["deviation"].values()) > 0.3 * points[-1].level
    assert set(found["arms"]) == set(ARMS)
    assert all(0.0 <= arm["auc"] <= 1.0 for arm in found["arms"].values())
    size = sum(p.numel() for p in reference.values())
    truth = gradients.estimate_truth(cell, points[-1].policy, 32, torch.Generator().manual_seed(2))
    assert truth.shape == (2, 2, size)


def test_training_is_decided_by_its_seed():
    runs = [
        train(CELL, make_model(0), "relative half", Regime(1, 1e-3, 2), torch.Generator().manual_seed(3))
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert len(runs[0]["rewards"]) == 2


def test_a_snapshot_does_not_change():
    model = {name: p.requires_grad_() for name, p in make_model(0).items()}
    kept = copy(model)
    with torch.no_grad():
        model["head"].add_(1.0)
    assert not torch.equal(kept["head"], model["head"])


def make_records(gain):
    """Trainings of two cells and five seeds; `better` gains over GRPO, `same` does not."""
    noise = [0.01, -0.02, 0.015, -0.01, 0.005]
    for cell in ("slots-wide", "walk-narrow"):
        for seed, own in enumerate(noise):
            for arm, plus in {"grpo": 0.0, "better": gain + own / 10, "same": own}.items():
                rewards = [0.3 + 0.02 * seed + plus] * 10
                yield {
                    "kind": "train",
                    "cell": cell,
                    "seed": seed,
                    "arm": arm,
                    "rate": 1e-3,
                    "rewards": rewards,
                }


def test_only_what_survives_the_correction_is_bold():
    records = list(make_records(gain=0.1))
    found = findings.compare_trainings(records)
    assert found["training", "better"].mean == pytest.approx(0.1)
    assert found["training", "better"].verdict == "higher"
    assert found["plateau", "same"].verdict == "no difference found"
    rows = {row[0]: row for row in writing.tabulate_trainings(records)}
    assert rows["better"][2].startswith("**+0.100 [")
    assert rows["same"][2].startswith("+0.000 [")
    assert rows["grpo"][2] == "0.340"


def test_each_arm_gets_the_learning_rate_that_was_best_for_it_in_its_cell():
    records = [
        {"kind": "rate", "cell": "slots-wide", "seed": seed, "arm": arm, "rate": rate, "rewards": [reward]}
        for seed in (1000, 1001)
        for arm, by_rate in {"grpo": {1e-3: 0.5, 3e-3: 0.4}, "oracle": {1e-3: 0.5, 3e-3: 0.6}}.items()
        for rate, reward in by_rate.items()
    ]
    assert work.choose_rates(records) == {("slots-wide", "grpo"): 1e-3, ("slots-wide", "oracle"): 3e-3}


def test_few_pairs_are_not_compared():
    assert findings.compare({("a", 0): 1.0, ("a", 1): 2.0}, {("a", 0): 0.0, ("a", 1): 1.0}) is None


def test_a_warm_up_that_learned_nothing_is_replaced_and_given_up_in_the_end(monkeypatch):
    monkeypatch.setattr("pivot_study.policy.ATTEMPTS", 2)
    with pytest.raises(RuntimeError, match=r"slots-wide, seed 3: no warm-up of 2 reached a reward of 0\.9"):
        warm_up(CELL, 3, 1, least_reward=0.9)
    first = warm_up(CELL, 3, 1, least_reward=0.0)
    assert (first.attempts, first.reward) == (1, 0.0)
