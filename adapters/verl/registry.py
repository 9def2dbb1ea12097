"""credit's estimators in verl's registry: credit_grpo, credit_dgpo, ..."""

from functools import partial

from credit.adapters.hooks import check_framework
from credit.adapters.verl.hooks import FRAMEWORK, REGISTRY

check_framework(FRAMEWORK, REGISTRY)

from verl.trainer.ppo import core_algos  # noqa: E402

import credit  # noqa: E402
from credit.adapters.verl.rollouts import compute_advantages  # noqa: E402


def register_estimators() -> None:
    """Registers every estimator of credit that verl does not know yet; verl's own stay as they are."""
    for name in credit.names():
        known_as = FRAMEWORK.prefix + name
        if known_as not in core_algos.ADV_ESTIMATOR_REGISTRY:
            core_algos.register_adv_est(known_as)(partial(compute_advantages, known_as))


register_estimators()
