"""Metrics of what an estimator observes, by names that are its own."""

from typing import Literal

import numpy as np
import pytest

import credit
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


@pytest.mark.parametrize("name", ["entropy", "weight_sum", "tokens", "lengths", "observed", "x_sum", "a_max"])
def test_any_other_name_gives_its_mean_and_largest(name):
    found = define("observing", name)()(ROLLOUTS).metrics
    assert set(found) == {*metrics.OWN, f"{name}_mean", f"{name}_max"}
    assert found[f"{name}_mean"] == pytest.approx(FIELD[ROLLOUTS.mask].mean())
    assert found[f"{name}_max"] == 1.0
    plain = credit.GRPO()(ROLLOUTS).metrics
    assert {own: found[own] for own in metrics.OWN} == plain


def test_a_name_whose_metric_every_estimator_has_is_refused():
    with pytest.raises(ValueError, match="of mine returns a value named 'weight', whose metric 'weight_max'"):
        define("mine", "weight")()(ROLLOUTS)


def test_two_parts_of_a_mix_with_one_name_are_refused():
    define("first", "part_x")
    define("first_part", "x")
    mix = credit.Mix(parts=[(1, "first"), (1, "first_part")])
    with pytest.raises(ValueError, match="two parts of the mix observe a value .* 'first_part_x'"):
        mix(ROLLOUTS)
