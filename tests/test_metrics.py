"""Metrics of what an estimator observes, by names that are its own."""

from pathlib import Path
from typing import Literal

import numpy as np
import oracle
import pytest
import running
import strategies
from named import NAMES, make

import credit
from credit.backends.arrays import namespace
from credit.estimators import metrics

FIELD = np.array([[0.5, 0.25, 7.0], [0.5, 1.0, 0.75]], np.float32)
ROLLOUTS = credit.Rollouts(
    rewards=np.array([1, 0], np.float32),
    groups=np.zeros(2, int),
    mask=np.array([[1, 1, 0], [1, 1, 1]], bool),
    deviation=FIELD,
    normalized_entropy=FIELD,
)


pytestmark = pytest.mark.usefixtures("own_registry")


def define(chosen, observed_name):
    """An estimator class that observes the deviation under that name."""

    class Observing(credit.GRPO):
        name: Literal[chosen] = chosen

        def observed(self, rollouts):
            return {observed_name: rollouts.deviation}

    return Observing


def test_own_names_are_those_of_every_estimator():
    assert tuple(credit.GRPO()(ROLLOUTS).metrics) == metrics.OWN


@pytest.mark.filterwarnings("ignore:effective_fraction is missed")
def test_every_metric_stands_in_the_docs():
    documented = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()
    ones = np.ones((strategies.N, strategies.T), bool)
    rewards, groups = np.arange(strategies.N) % 3, np.arange(strategies.N) // 4
    batch = credit.Rollouts(rewards, groups, ones, **strategies.token_fields(0))
    for estimator in (*map(make, NAMES), credit.DGPO(effective_fraction=0.5)):
        for name in estimator(batch).metrics:
            alone = name.partition("_")[2] if estimator.name == "mix" else name
            mean = name.removesuffix("_max") + "_mean"
            assert any(f"`{each}`" in documented for each in (name, alone, mean)), name


@pytest.mark.parametrize("name", ["entropy", "weight_sum", "tokens", "lengths", "observed", "x_sum", "a_max"])
def test_any_other_name_gives_its_mean_and_largest(name):
    found = define("observing", name)()(ROLLOUTS).metrics
    assert set(found) == {*metrics.OWN, f"{name}_mean", f"{name}_max"}
    assert found[f"{name}_mean"] == pytest.approx(FIELD[ROLLOUTS.mask].mean())
    assert found[f"{name}_max"] == 1.0
    plain = credit.GRPO()(ROLLOUTS).metrics
    assert {own: found[own] for own in metrics.OWN} == plain


def test_a_name_whose_metric_every_estimator_has_is_refused():
    for name in ("weight", "advantage"):
        message = f"of mine_too returns a value named '{name}', whose metric '{name}_m"
        with pytest.raises(ValueError, match=message):
            define("mine_too", name)()(ROLLOUTS)


def test_two_parts_of_a_mix_with_one_name_are_refused():
    define("first", "part_x")
    define("first_part", "x")
    mix = credit.Mix(parts=[(1, "first"), (1, "first_part")])
    with pytest.raises(ValueError, match="two parts of the mix observe a value .* 'first_part_x'"):
        mix(ROLLOUTS)


class Given(credit.Estimator):
    """A_i is the reward, whatever the group."""

    name: Literal["given_for_metrics"] = "given_for_metrics"

    def advantages(self, rollouts):
        xp = namespace(rollouts.rewards)
        return xp.where(rollouts.rewards == 7.0, float("nan"), rollouts.rewards)


class GivenByToken(Given):
    """The same as advantages that are no product."""

    name: Literal["given_by_token_for_metrics"] = "given_by_token_for_metrics"

    def assign(self, rollouts):
        return super().assign(rollouts)


def find_advantage_metrics(library, estimator, rollouts):
    found = running.run(library, estimator, rollouts).metrics
    return {name: found[name] for name in found if name.startswith("advantage_")}


@pytest.mark.parametrize("estimator", [Given(), GivenByToken()], ids=lambda each: each.name)
@pytest.mark.parametrize(
    "rewards",
    [(1000.7, 1000.7), (1000.1, 1000.2), (1e30, -1e30), (1e-30, -1e-30), (0.0, -2.0), (0.0, 0.0)],
    ids=str,
)
def test_float32_keeps_the_spread_of_advantages_of_any_size(library, estimator, rewards):
    lengths = range(1, 8)
    rollouts = credit.Rollouts(
        rewards=np.resize(np.array(rewards, np.float32), 7),
        groups=np.zeros(7, int),
        mask=np.tri(7, dtype=bool),
    )
    found = find_advantage_metrics(library, estimator, rollouts)
    expected = oracle.advantage_metrics(np.repeat(rollouts.rewards, lengths).tolist())
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=2e-6, atol=1e-7 * abs(rewards[0]))
    if rewards[0] == rewards[1]:
        assert found["advantage_std"] == 0
        assert found["advantage_mean"] == rollouts.rewards[0]


@pytest.mark.parametrize("estimator", [Given(), GivenByToken()], ids=lambda each: each.name)
def test_a_nan_advantage_is_seen_and_that_of_a_row_without_tokens_is_not(library, estimator):
    rollouts = ROLLOUTS._replace(rewards=np.array([1, 7], np.float32))
    assert np.isnan([*find_advantage_metrics(library, estimator, rollouts).values()]).all()
    mask = ROLLOUTS.mask & np.array([[True], [False]])
    found = find_advantage_metrics(library, estimator, rollouts._replace(mask=mask))
    assert found.pop("advantage_std") == 0
    assert list(found.values()) == [1, 1, 1, 1]


def test_a_product_and_a_sum_of_products_have_the_same_metrics(library):
    """The first are computed from the weights' sums, the second from the advantages."""
    rollouts = ROLLOUTS._replace(deviation=FIELD / 10, normalized_entropy=FIELD / 10)
    dgpo = credit.DGPO(tau=0.01)
    found = find_advantage_metrics(library, dgpo, rollouts)
    mixed = find_advantage_metrics(library, credit.Mix(parts=[(1, dgpo)]), rollouts)
    assert found["advantage_std"] > 0.7
    for name, value in found.items():
        np.testing.assert_allclose(mixed[name], value, rtol=1e-5, atol=1e-6)


def test_drift_alignment_tells_drift_by_rewards_from_wandering(library):
    rng = np.random.default_rng(0)
    rewards, groups = rng.integers(0, 2, 64).astype(np.float32), np.arange(64) // 8
    mask = np.ones((64, 5), bool)
    noise = rng.normal(0, 0.1, (64, 5)).astype(np.float32)
    learned = np.zeros_like(noise)
    learned[:, 2] = rewards - 0.5
    found = [
        running.run(
            library,
            credit.GRPO(),
            credit.Rollouts(rewards, groups, mask, log_probs=moved - 1, reference_log_probs=0 * moved - 1),
        ).metrics["drift_alignment"]
        for moved in (learned, learned + noise, noise, -learned)
    ]
    assert found[0] > 0.85
    assert 0.6 < found[1] < found[0]
    assert abs(found[2]) < 0.3
    assert found[3] == pytest.approx(-found[0])


def test_drift_alignment_needs_both_log_probs_and_counts_a_masked_logit_as_twenty_nats():
    ones = np.ones((2, 2), np.float32)
    alone = ROLLOUTS._replace(mask=np.ones((2, 3), bool), log_probs=-FIELD)
    assert "drift_alignment" not in credit.GRPO()(alone).metrics
    masked = credit.Rollouts(
        np.array([1, 0], np.float32),
        np.zeros(2, int),
        ones.astype(bool),
        log_probs=-ones,
        reference_log_probs=np.array([[-1e30, -1], [-21, -1]], np.float32),
    )
    assert credit.GRPO()(masked).metrics["drift_alignment"] == 0.0  # 20 nats in both rows, A of both signs


def test_a_token_that_both_models_exclude_has_not_moved(library):
    ones = np.ones((2, 2), np.float32)
    excluded = np.array([[-np.inf, -1], [-1, -1]], np.float32)
    batch = credit.Rollouts(
        np.array([1, 0], np.float32),
        np.zeros(2, int),
        ones.astype(bool),
        log_probs=excluded,
        reference_log_probs=excluded - np.array([[0, 1], [0, 0]], np.float32),
    )
    assert running.run(library, credit.GRPO(), batch).metrics["drift_alignment"] == pytest.approx(0.5**0.5)
