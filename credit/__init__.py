"""Token-level credit assignment for reinforcement learning of language models."""

from types import ModuleType as _Module

from credit import groups as groups
from credit import tokens as tokens
from credit.bounds import DeviationBounds as DeviationBounds
from credit.bounds import binary_deviation as binary_deviation
from credit.bounds import top_k_deviation as top_k_deviation
from credit.estimators.base import Estimator as Estimator
from credit.estimators.dapo import DAPO as DAPO
from credit.estimators.dgpo import DGPO as DGPO
from credit.estimators.dr_grpo import DrGRPO as DrGRPO
from credit.estimators.entropy_shaped import EntropyShaped as EntropyShaped
from credit.estimators.gdpo import GDPO as GDPO
from credit.estimators.gpg import GPG as GPG
from credit.estimators.grpo import GRPO as GRPO
from credit.estimators.grpo_s import GRPOS as GRPOS
from credit.estimators.gtpo import GTPO as GTPO
from credit.estimators.lite_ppo import LitePPO as LitePPO
from credit.estimators.max_rl import MaxRL as MaxRL
from credit.estimators.mix import Mix as Mix
from credit.estimators.mt_grpo import MTGRPO as MTGRPO
from credit.estimators.opo import OPO as OPO
from credit.estimators.pass_at_k import PassAtK as PassAtK
from credit.estimators.redistributing import Redistributing as Redistributing
from credit.estimators.registry import get as get
from credit.estimators.registry import names as names
from credit.estimators.registry import parse as parse
from credit.estimators.reinforce_plus_plus import ReinforcePlusPlus as ReinforcePlusPlus
from credit.estimators.reinforce_plus_plus_baseline import (
    ReinforcePlusPlusBaseline as ReinforcePlusPlusBaseline,
)
from credit.estimators.remax import ReMax as ReMax
from credit.estimators.rloo import RLOO as RLOO
from credit.estimators.top_entropy import TopEntropy as TopEntropy
from credit.log_probs import log_probs_and_entropy as log_probs_and_entropy
from credit.log_probs import selected_log_probs as selected_log_probs
from credit.log_probs import selected_log_probs_from_hidden as selected_log_probs_from_hidden
from credit.loss import PolicyLoss as PolicyLoss
from credit.rewards import overlong_penalty as overlong_penalty
from credit.schedule import Schedule as Schedule
from credit.statistics import token_statistics as token_statistics
from credit.statistics_from_hidden import token_statistics_from_hidden as token_statistics_from_hidden
from credit.types import Credit as Credit
from credit.types import Rollouts as Rollouts
from credit.types import TokenStatistics as TokenStatistics
from credit.validation import validate as validate
from credit.version import find_version as _find_version

# The imports above are the one list of what is public; of modules, only these two are among it.
__all__: list[str] = ["groups", "tokens"]
__all__ += [n for n, value in globals().items() if n[0] != "_" and not isinstance(value, _Module)]

__version__ = _find_version()


def __dir__() -> list[str]:
    """The public names, without the modules that they come from."""
    return [*__all__, "__version__"]
