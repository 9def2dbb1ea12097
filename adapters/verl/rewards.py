"""Which rewards an estimator reads in verl: those of tokens, of turns, or several by name."""

from typing import Any, Literal

import credit
from credit.adapters import traits
from credit.adapters.verl.hooks import FRAMEWORK
from credit.estimators.mix import Mix
from credit.estimators.token_rewards import TokenRewarded

TokenRewards = Literal["token_level_rewards", "turn_scores", "tool_rewards"]
KEYS, WEIGHTS = "gdpo_reward_keys", "gdpo_reward_weights"  # verl's own options of its gdpo
OPTIONS = (KEYS, WEIGHTS, "use_kl_in_reward")
"""The keys of verl's `algorithm` section that are read here."""


def read_tokens(estimator: credit.Estimator) -> credit.Estimator:
    """The estimator with rewards_from="tokens" where the user has not set it, in the parts of a mix, too.

    verl hands every estimator a reward per token, of which its own reinforce_plus_plus, gae and optimal
    token baselines read each where it lies.
    """
    if isinstance(estimator, Mix):
        parts = tuple((factor, read_tokens(part)) for factor, part in estimator.parts)
        return estimator.model_copy(update={"parts": parts})
    if not isinstance(estimator, TokenRewarded) or "rewards_from" in estimator.model_fields_set:
        return estimator
    tokens = estimator.rewards_from == "response"
    return estimator.model_copy(update={"rewards_from": "tokens"}) if tokens else estimator


def refuse_token_rewards(estimator: credit.Estimator, algorithm: Any, source: TokenRewards) -> None:
    """Raises ValueError where rewards of tokens would not be read, be read twice or be moved."""
    parts = [part.estimator for part in traits.list_parts(estimator)]
    adders = [part for part in parts if isinstance(part, TokenRewarded)]
    if source != "token_level_rewards" and "token_rewards" not in estimator.required_fields:
        both = "set rewards_from=both to add them to the reward of the response, or " if adders else ""
        raise ValueError(
            f"algorithm.credit.token_rewards={source} has no effect with {FRAMEWORK.name_of(estimator)}; "
            f"{both}leave it out"
        )
    for part in adders:
        if part.rewards_from == "both" and source == "token_level_rewards":
            raise ValueError(
                f"rewards_from=both of {part.name} adds verl's token_level_rewards to their own sum; set "
                "rewards_from=tokens, or +algorithm.credit.token_rewards=turn_scores or tool_rewards"
            )
        if algorithm.get("use_kl_in_reward"):
            _refuse_kl(part, source)


def _refuse_kl(part: TokenRewarded, source: TokenRewards) -> None:
    """Raises ValueError unless the part reads verl's KL penalty on each token, and subtracts none itself."""
    option, rewards_from = "algorithm.use_kl_in_reward=True", part.rewards_from
    if rewards_from != "tokens":
        raise ValueError(
            f"rewards_from={rewards_from} of {part.name} moves the sum of verl's token_level_rewards to the "
            f"last token, and with it the KL penalty of {option} on each token; set rewards_from=tokens, or "
            "algorithm.use_kl_in_reward=False"
        )
    if source != "token_level_rewards":
        raise ValueError(
            f"{option} has no effect with {part.name}, which reads the rewards of "
            f"algorithm.credit.token_rewards={source} alone; leave one of them out"
        )
    if getattr(part, "kl_coefficient", 0.0):
        raise ValueError(
            f"{option} and kl_coefficient of {part.name} both subtract a KL penalty; leave one of them out"
        )


def name_rewards(estimator: credit.Estimator, algorithm: Any) -> tuple[credit.Estimator, tuple[str, ...]]:
    """The estimator with verl's weights of several rewards, and the names of those rewards; () of one.

    Raises:
        ValueError: the estimator weighs several rewards and none are named; or the options have no effect.
    """
    name, keys = FRAMEWORK.name_of(estimator), tuple(algorithm.get(KEYS) or ())
    weights = algorithm.get(WEIGHTS)
    if not traits.weighs_rewards(estimator):
        for option, value in ((KEYS, keys), (WEIGHTS, weights)):
            if value:
                raise ValueError(
                    f"algorithm.{option} has no effect with {name}, which reads one reward per response; "
                    f"leave it out, or use {FRAMEWORK.prefix}gdpo"
                )
        return estimator, ()
    _refuse_several(estimator, name, algorithm, keys)
    if weights is not None:
        estimator = traits.set_reward_weights(estimator, [float(weight) for weight in weights])
    own = getattr(traits.find_weigher(estimator), "reward_weights", None)
    if own is not None and len(own) != len(keys):
        raise ValueError(
            f"{name} has {len(own)} weights for the {len(keys)} rewards of algorithm.{KEYS} "
            f"({', '.join(keys)}); give one for each"
        )
    return estimator, keys


def _refuse_several(estimator: credit.Estimator, name: str, algorithm: Any, keys: tuple[str, ...]) -> None:
    weigher = traits.find_weigher(estimator)
    if weigher is None:
        raise ValueError(
            f"{name} passes on one reward per response, but one of its parts weighs several (gdpo); use "
            "that estimator alone"
        )
    if not keys:
        raise ValueError(
            f"{name} weighs several rewards, and none are named; name what the reward function returns, as "
            f"for verl's own gdpo: +algorithm.{KEYS}=[accuracy,format]"
        )
    if algorithm.get(WEIGHTS) is not None and getattr(weigher, "reward_weights", None):
        raise ValueError(f"algorithm.{WEIGHTS} and reward_weights of {name} are both set; leave one out")
    if algorithm.get("use_kl_in_reward"):
        raise ValueError(
            f"algorithm.use_kl_in_reward=True has no effect with {name}, which reads the rewards of "
            f"algorithm.{KEYS} and not their sum; set actor.use_kl_loss=True instead, or leave it out"
        )


def refuse_greedy_baseline(estimator: credit.Estimator) -> None:
    """Raises ValueError for estimators that need the reward of a greedy response."""
    if "baseline_rewards" in estimator.required_fields:
        raise ValueError(
            f"{FRAMEWORK.name_of(estimator)} needs baseline_rewards, those of greedy responses, which verl "
            "samples for its own adv_estimator=remax alone, with trainer.use_v1=False; use that, or another "
            f"estimator, such as {FRAMEWORK.prefix}rloo"
        )


def refuse_parallel_calls(source: TokenRewards, multi_turn: Any) -> None:
    """Raises ValueError if rewards of tools cannot be told apart by turn."""
    calls = multi_turn.max_parallel_calls
    if source == "tool_rewards" and calls > 1:
        raise ValueError(
            "algorithm.credit.token_rewards=tool_rewards needs one call of a tool per turn, and a turn has "
            f"up to {calls}; set actor_rollout_ref.rollout.multi_turn.max_parallel_calls=1, or let the agent "
            "loop give turn_scores"
        )


def refuse_rejection(estimator: credit.Estimator, algorithm: Any) -> None:
    """Raises ValueError if turns cannot be told, since the mask before rejection is not at hand."""
    correction = algorithm.get("rollout_correction") or {}
    rejects = correction.get("rollout_rs") and not correction.get("bypass_mode")
    if rejects and "turns" in estimator.required_fields:
        raise ValueError(
            f"{FRAMEWORK.name_of(estimator)} needs turns, and this trainer does not say what they were "
            "before rollout_correction.rollout_rs rejected tokens; use a V1 trainer (trainer.use_v1=True), "
            "or set algorithm.rollout_correction.rollout_rs=null"
        )
