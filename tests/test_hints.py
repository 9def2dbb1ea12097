"""Hints where a default misleads, given once."""

import warnings
from typing import Literal

import numpy as np
import pytest

import credit
from credit import PolicyLoss
from credit.losses.papers import PAPERS

pytestmark = pytest.mark.usefixtures("own_registry")


@pytest.mark.parametrize(
    "make",
    [
        lambda: PolicyLoss(ratio="sequence"),
        lambda: PolicyLoss(ratio="sequence", clip_low=3e-4),
        lambda: PolicyLoss(ratio="sequence", objective="cispo"),
        lambda: credit.GRPO(loss={"ratio": "sequence"}),
        lambda: credit.get("dapo", loss={"ratio": "sequence"}),
        lambda: credit.parse({"name": "rloo", "loss": '{"ratio": "sequence", "clip_high": 4e-4}'}),
    ],
)
def test_a_sequences_ratio_with_a_tokens_clips_gets_a_hint_once(make):
    with pytest.warns(UserWarning, match="GSPO paper .* has clip_low=3e-4 and clip_high=4e-4"):
        make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make()


def test_the_hint_points_to_the_users_line():
    with pytest.warns(UserWarning, match="ratio=") as said:
        PolicyLoss(ratio="sequence")
    assert said[0].filename == __file__


@pytest.mark.parametrize(("objective", "clips"), [("gmpo", "clip_low=0.4"), ("dppo_kl", "clip_low=0.05")])
def test_a_ratios_clips_get_a_hint_where_they_bound_something_else(objective, clips):
    with pytest.warns(
        UserWarning, match=f'objective="{objective}" is left with .* (has|have) {clips}'
    ) as said:
        PolicyLoss(objective=objective, clip_high=0.3)
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PolicyLoss(objective=objective, clip_high=0.3)


def test_clips_that_were_chosen_get_no_hint():
    class OfSequences(PolicyLoss):
        clip_low: float = 3e-4
        clip_high: float = 4e-4

    class Own(credit.GRPO):
        name: Literal["own_for_hints"] = "own_for_hints"
        loss: PolicyLoss = OfSequences()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = PolicyLoss(ratio="sequence", clip_low=3e-4, clip_high=4e-4)
        PolicyLoss(ratio="sequence", clip_low=0.2, clip_high=0.2)
        PolicyLoss(clip_low=0.1)
        PolicyLoss(ratio="sequence", objective="sapo")
        for paper in PAPERS:
            PolicyLoss.from_paper(paper)
        Own(loss={"ratio": "sequence"})
        assert credit.parse(credit.GRPO(loss=chosen).model_dump()).loss == chosen


def test_turns_that_some_response_lacks_are_a_metric():
    given = credit.Rollouts(
        rewards=np.array([1.0, 0.0, 1.0, 0.0]),
        groups=np.array([0, 0, 1, 1]),
        mask=np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]], bool),
        token_rewards=np.zeros((4, 4)),
        turns=np.array([[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]),
    )
    metrics = credit.MTGRPO()(given).metrics
    assert metrics["unshared_turn_mean"] == pytest.approx(2 / 9)
    assert credit.MTGRPO()(given._replace(turns=np.zeros((4, 4), int))).metrics["unshared_turn_max"] == 0
