"""How SkyRL's rows become rollouts: steps as rows, rewards of turns, arrays of the user's own."""

from types import SimpleNamespace
from typing import Literal

import numpy as np
import oracle
import pytest
import torch
from skyrl_models import EOS, make_output
from skyrl_oracle import make_rollouts

import credit
from credit.adapters.skyrl import rollouts

CLOSE = 2e-5
STEPS = [1, 3, 2, 1, 2, 1, 1, 2]  # of the trajectories of two prompts


def make_stepwise():
    """What a generator returns with a row for each step, of which the last one has the reward."""
    whole, rows = make_output(prompts=7, size=2, seed=9), []
    count, trajectory = sum(STEPS), [i for i, steps in enumerate(STEPS) for _ in range(steps)]
    output = {name: each[:count] if isinstance(each, list) else each for name, each in whole.items()}
    last = [row + 1 == count or trajectory[row + 1] != trajectory[row] for row in range(count)]
    for row, (reward, response) in enumerate(zip(output["rewards"], output["response_ids"], strict=True)):
        rows.append([0.0] * (len(response) - 1) + [reward if last[row] else 7.0])
    ids = [SimpleNamespace(instance_id=str(i // 4), repetition_id=i % 4) for i in trajectory]
    output |= {"rewards": rows, "is_last_step": last, "trajectory_ids": ids}
    return output, [each.instance_id for each in ids], last, trajectory


@pytest.mark.parametrize("ways", [1, 2])
def test_steps_as_rows_get_the_advantage_of_their_trajectory(steps, models, ways):
    """With two workers SkyRL adds rows to mini-batches of an odd number of steps."""
    run = steps("credit_dgpo", {"tau": 0.05}, generator__step_wise_trajectories="true")
    run.take(*make_stepwise()[:2])
    run.trainer.dispatch.ways = ways
    output, uids, last, trajectory = make_stepwise()
    step = run.take(output, uids, train=False)
    count, estimator = len(last), credit.DGPO(tau=0.05)
    assert len(step.mask) == count + count % ways
    step.mask, step.rewards, step.uids = step.mask[:count], step.rewards[:count], step.uids[:count]
    every = make_rollouts(step, models)._replace(turns=None)
    every = every._replace(log_probs=None, reference_log_probs=None)
    chosen = np.flatnonzero(last)
    ends = credit.Rollouts(every.rewards[chosen], every.groups[chosen], every.mask[chosen])
    by_trajectory = oracle.estimate(credit.GRPO(), ends)[0]
    expected = by_trajectory[trajectory][:, None] * oracle.spread_weights(estimator, every)
    assert np.abs(step.advantages[:count].numpy() - expected).max() < CLOSE
    assert step.metrics["loss/avg_raw_advantages_abs"] == pytest.approx(
        np.abs(expected)[step.data["response_mask"][:count].numpy() > 0].mean(), abs=1e-5
    )
    assert step.metrics["credit/deviation_max"] > 0.05


def make_turns():
    """Two turns with a tool between them; the first one ends with a token that is outside the loss mask."""
    output = make_output(seed=2)
    output["response_ids"] = [[6, 7, EOS, 5, 5, 8, 9], [6, EOS, 5, 8]] * 4
    output["loss_masks"] = [[1, 1, 0, 0, 0, 1, 1], [1, 0, 0, 1]] * 4
    earned = [(0.5 * (i % 3), float(i % 2)) for i in range(8)]
    output["rewards"] = [
        [0, 0, first, 0, 0, 0, last] if i % 2 == 0 else [0, first, 0, last]
        for i, (first, last) in enumerate(earned)
    ]
    output["rollout_logprobs"] = [[-1.0] * len(row) for row in output["response_ids"]]
    return output, np.array(earned)


@pytest.mark.parametrize("masked", [[], [3]])
def test_rewards_of_turns(steps, masked):
    """The last turn's is the outcome, and each stands on a token of the policy.

    Of a row whose tokens are all masked, as by overlong filtering, the outcome is all that it earned.
    """
    output, earned = make_turns()
    for row in masked:
        output["loss_masks"][row] = [0] * len(output["loss_masks"][row])
    step = steps("credit_mt_grpo").take(output)
    mask, token_rewards, outcomes = step.mask.numpy(), np.zeros(step.mask.shape), earned[:, 1].copy()
    for row, first in enumerate(earned[:, 0]):
        token_rewards[row, 1 if row % 2 == 0 else 3] = first
    token_rewards[masked], outcomes[masked] = 0.0, earned[masked].sum(axis=1)
    given = credit.Rollouts(
        outcomes, np.arange(8) // 4, mask, token_rewards=token_rewards, turns=credit.tokens.turns(mask)
    )
    expected = oracle.estimate(credit.get("mt_grpo"), given)[1]
    assert len(np.unique(expected.round(6))) > 4
    np.testing.assert_allclose(step.advantages.numpy(), expected, rtol=0, atol=CLOSE)
    assert step.metrics["loss/avg_final_rewards"] == pytest.approx(earned.sum(axis=1).mean())


def test_a_reward_outside_the_mask_moves_to_the_token_before_it():
    mask = torch.tensor([[0, 1, 0, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]]) > 0
    rewards = torch.tensor([[1.0, 2, 4, 8, 16], [1, 2, 4, 8, 16], [1, 2, 4, 8, 16]])
    expected = torch.tensor([[0.0, 7, 0, 24, 0], [0, 0, 7, 24, 0], [0, 0, 0, 0, 0]])
    assert torch.equal(rollouts.move_into(rewards, mask), expected)


class Witness(credit.GRPO):
    """Keeps what it is given, and adds a user's scores of tokens and of responses."""

    name: Literal["witness"] = "witness"

    @property
    def needs(self):
        return ("extra.scores", "extra.bonus", "extra.token_ids", "rollout_log_probs", "progress")

    def weights(self, rollouts, advantages):
        SEEN.append(rollouts)
        return rollouts.mask * (1 + rollouts.extra["scores"]) + 0 * rollouts.extra["bonus"][:, None]


SEEN = []


def test_arrays_of_the_users_own_are_those_of_their_rows(steps):
    """Scores made of the token ids tell, one for each token of a response, the output of tools included."""
    run, seen = steps("credit_witness"), []
    for _ in range(2):
        SEEN.clear()
        output = make_output(seed=11)
        scores = [[0.01 * token for token in row] for row in output["response_ids"]]
        step = run.take(output, scores=scores, bonus=[float(len(row)) for row in scores])
        (given,) = SEEN
        seen.append(float(given.progress))
        mask = given.mask
        ids = given.extra["token_ids"]
        torch.testing.assert_close(given.extra["scores"][mask], 0.01 * ids[mask].float())
        assert torch.equal(given.extra["bonus"], step.data["response_mask"].sum(dim=1).float())
        width = mask.shape[1]
        for row, recorded in enumerate(output["rollout_logprobs"]):
            own = slice(width - len(recorded), None)
            chosen = mask[row, own]
            found = given.rollout_log_probs[row, own]
            torch.testing.assert_close(found[chosen], torch.tensor(recorded)[chosen])
    assert seen == [0.0, 0.25]


def test_an_array_that_is_not_there_is_named(steps):
    run = steps("credit_witness")
    with pytest.raises(
        ValueError,
        match="credit_witness needs extra.scores, but this batch has no 'scores'; it has loss_masks, ",
    ):
        run.take()
    with pytest.raises(ValueError, match="scores of row 0 has 1 values, and its response . tokens"):
        run.take(scores=[[1.0]] * 7 + [[1.0, 2.0]], bonus=[0.0] * 8)
    output = make_output() | {"rollout_logprobs": None}
    with pytest.raises(ValueError, match="needs rollout_log_probs, and the generator returned none"):
        run.take(output, scores=[0.0] * 8, bonus=[0.0] * 8)
