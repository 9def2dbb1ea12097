"""A plugin of pytest, for OpenRLHF's own tests of rewards: its experience maker is ours from here on.

Each of OpenRLHF's estimators is one of credit's, with the settings that a user's flags would give it.
"""

from types import SimpleNamespace
from typing import Any

import pytest

import credit
from credit.adapters.openrlhf import whitening
from credit.adapters.openrlhf.settings import Choice
from credit.adapters.openrlhf.trainer import CreditExperienceMaker

PRESET = {"preset": "openrlhf"}
ESTIMATORS: dict[str, dict[str, Any]] = {
    "gae": {"name": "gae", **PRESET},
    "reinforce": {"name": "reinforce_plus_plus", **PRESET},
    "group_norm": {"name": "grpo", **PRESET},
    "rloo": {"name": "rloo"},
    "reinforce_baseline": {"name": "reinforce_plus_plus_baseline", **PRESET},
    "dr_grpo": {"name": "dr_grpo"},
    "flash_reinforce": {"name": "dr_grpo", "baseline": "batch"},
}
calls: dict[str, int] = {}


class OursInPlace(CreditExperienceMaker):
    """Takes the arguments that OpenRLHF's tests put together by hand."""

    def compute_advantages_and_returns(self, experiences: Any) -> Any:
        given = vars(self.strategy.args)
        name = given["algo"].advantage.estimator
        calls[name] = calls.get(name, 0) + 1
        estimator = credit.parse(ESTIMATORS[name])
        if getattr(given["algo"].advantage, "no_std_norm", False):
            estimator = whitening.leave_undivided(estimator, preset=True)
        self.args, self.credit_progress = SimpleNamespace(**given, credit=Choice(estimator)), 0.0
        return super().compute_advantages_and_returns(experiences)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any) -> Any:
    """OpenRLHF's tests load its module from the file anew; of that copy, too, the maker is ours."""
    made = yield
    if fixturedef.argname == "maker_module":
        made.RemoteExperienceMaker = OursInPlace
    return made


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"calls of ours: {' '.join(f'{k}={v}' for k, v in calls.items())}")
