"""A user's estimator that compares what it is given, and what it makes of it, with float64 by hand."""

from typing import Literal

import by_hand
import numpy as np

import credit

COEFFICIENT, GAMMA = 0.5, 0.9  # of the KL penalty in verl's reward, and the discount


class TurnWitness(credit.ReinforcePlusPlus):
    """REINFORCE++ over the turns of `turns_loop`, whose rewards are those of turns, outcome and KL penalty."""

    name: Literal["turn_witness"] = "turn_witness"

    @property
    def needs(self):
        own = ("turns", "log_probs", "reference_log_probs", "extra.token_ids", "extra.doubled")
        return (*super().needs, *own, "extra.own_turns", "extra.own_rejected")

    def __call__(self, rollouts):
        result = super().__call__(rollouts)
        extra = {name: array.numpy() for name, array in rollouts.extra.items()}
        turns, rejected = extra["own_turns"], extra["own_rejected"].astype(bool)
        mask = (turns > 0) & ~rejected
        rewards = place_rewards(rollouts, extra, turns)
        move_rejected(rewards, turns, rejected)
        returns = by_hand.return_to_go(rewards, mask, GAMMA)
        penalty = rollouts.log_probs - rollouts.reference_log_probs
        found = {
            "mask": rollouts.mask.numpy() != mask,
            "turns": (rollouts.turns.numpy() + 1 != turns) & (turns > 0),
            "rewards": (rollouts.token_rewards.numpy() - rewards) * mask,
            "returns": self.returns(rollouts).numpy() - returns,
            "advantages": result.advantages.numpy() - by_hand.whiten(returns, mask),
        }
        measured = {f"error_of_{name}": np.abs(error).max() for name, error in found.items()}
        measured |= {"rejected": rejected.sum(), "turns_max": turns.max(), "penalty_max": penalty.abs().max()}
        measured["holes"] = ((turns == 0) & (np.cumsum(turns[:, ::-1] > 0, axis=1)[:, ::-1] > 0)).sum()
        result.metrics.update({name: rollouts.rewards.new_tensor(float(of)) for name, of in measured.items()})
        return result


def place_rewards(rollouts, extra, turns):
    """[N, T]: the KL penalty of each token, the reward of each turn and the outcome's."""
    penalty = (rollouts.log_probs - rollouts.reference_log_probs).double().numpy()
    rewards = np.where(turns > 0, -COEFFICIENT * penalty, 0.0)
    for row, own in enumerate(turns):
        for turn in (1, 2, 3):
            columns = np.flatnonzero(own == turn)
            rewards[row, columns[-1]] += extra["token_ids"][row, columns[0]] / 8
        rewards[row, np.flatnonzero(own)[-1]] += extra["doubled"][row] / 2
    return rewards


def move_rejected(rewards, turns, rejected):
    """In place: a rejected token's reward to the token before it, of which turns_loop rejects none."""
    for row, column in zip(*np.nonzero(rejected), strict=True):
        assert turns[row, column] == turns[row, column - 1]
        rewards[row, column - 1] += rewards[row, column]
        rewards[row, column] = 0.0
