"""The estimators; importing this package registers them."""

from credit.estimators.baselines import GPG, OPO, LitePPO, MaxRL, PassAtK, ReMax
from credit.estimators.dgpo import DGPO
from credit.estimators.entropy import GRPOS, GTPO, EntropyShaped, TopEntropy
from credit.estimators.group_relative import DAPO, GRPO, DrGRPO
from credit.estimators.mix import Mix
from credit.estimators.multi_turn import MTGRPO
from credit.estimators.redistributing import Redistributing
from credit.estimators.reinforce import GDPO, ReinforcePlusPlus, ReinforcePlusPlusBaseline
from credit.estimators.rloo import RLOO

__all__ = [
    "DAPO",
    "DGPO",
    "GDPO",
    "GPG",
    "GRPO",
    "GRPOS",
    "GTPO",
    "MTGRPO",
    "OPO",
    "RLOO",
    "DrGRPO",
    "EntropyShaped",
    "LitePPO",
    "MaxRL",
    "Mix",
    "PassAtK",
    "ReMax",
    "Redistributing",
    "ReinforcePlusPlus",
    "ReinforcePlusPlusBaseline",
    "TopEntropy",
]
