"""A plugin of pytest, for Tunix's own tests: its GRPO learners and their configs are ours from here on.

They are replaced in Tunix's modules before a test imports them. Tunix's tests sample greedily, which ours
refuse, since nothing is learned then; that rule alone is off here.
"""

from tunix.rl.agentic import agentic_grpo_learner
from tunix.rl.grpo import grpo_learner

from credit.adapters.tunix import (
    CreditAgenticGRPOConfig,
    CreditAgenticGRPOLearner,
    CreditGRPOConfig,
    CreditGRPOLearner,
    options,
)

PLACES = {
    grpo_learner: (CreditGRPOLearner, CreditGRPOConfig),
    agentic_grpo_learner: (CreditAgenticGRPOLearner, CreditAgenticGRPOConfig),
}
calls: dict[str, int] = {}


def pytest_configure():
    """Runs before Tunix's tests are imported."""
    options._refuse_greedy = lambda engine, rollout: None
    for module, (learner, config) in PLACES.items():
        module.GRPOLearner = module.GrpoLearner = learner
        module.GRPOConfig = module.GrpoConfig = config
        module.GRPOLearner.__init__ = counted(learner, learner.__init__)


def counted(learner, start):
    def init(self, *positional, **named):
        calls[learner.__name__] = calls.get(learner.__name__, 0) + 1
        start(self, *positional, **named)

    return init


def pytest_terminal_summary(terminalreporter):
    """Says how many of our learners were made."""
    told = " ".join(f"{name}={count}" for name, count in sorted(calls.items()))
    terminalreporter.write_line(f"learners of ours: {told}")
