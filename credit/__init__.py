"""Token-level credit assignment for reinforcement learning of language models."""

from credit import groups, tokens
from credit.bounds import DeviationBounds, binary_deviation, top_k_deviation
from credit.estimators import (
    DAPO,
    DGPO,
    GDPO,
    GPG,
    GRPO,
    GRPOS,
    GTPO,
    MTGRPO,
    OPO,
    RLOO,
    DrGRPO,
    EntropyShaped,
    LitePPO,
    MaxRL,
    Mix,
    PassAtK,
    Redistributing,
    ReinforcePlusPlus,
    ReinforcePlusPlusBaseline,
    ReMax,
    TopEntropy,
)
from credit.estimators.base import Estimator, get, names, parse
from credit.log_probs import log_probs_and_entropy, selected_log_probs, selected_log_probs_from_hidden
from credit.loss import PolicyLoss
from credit.rewards import overlong_penalty
from credit.schedule import Schedule
from credit.statistics import token_statistics, token_statistics_from_hidden
from credit.types import Credit, Rollouts, TokenStatistics
from credit.validation import validate

__all__ = [
    "Credit",
    "DAPO",
    "DGPO",
    "DeviationBounds",
    "DrGRPO",
    "EntropyShaped",
    "Estimator",
    "GDPO",
    "GPG",
    "GRPO",
    "GRPOS",
    "GTPO",
    "LitePPO",
    "MTGRPO",
    "MaxRL",
    "Mix",
    "OPO",
    "PassAtK",
    "PolicyLoss",
    "RLOO",
    "ReMax",
    "Redistributing",
    "ReinforcePlusPlus",
    "ReinforcePlusPlusBaseline",
    "Rollouts",
    "Schedule",
    "TokenStatistics",
    "TopEntropy",
    "binary_deviation",
    "get",
    "groups",
    "log_probs_and_entropy",
    "names",
    "overlong_penalty",
    "parse",
    "selected_log_probs",
    "selected_log_probs_from_hidden",
    "token_statistics",
    "token_statistics_from_hidden",
    "tokens",
    "top_k_deviation",
    "validate",
]
