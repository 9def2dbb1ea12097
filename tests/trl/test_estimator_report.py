"""The line of log with the estimator in force, from TRL's real trainers."""

import pytest

SOURCE = "token statistics: deviation, normalized_entropy, from the models' hidden states"


@pytest.fixture
def lines(caplog):
    """What the logger has said of estimators since the last call."""

    def take():
        found = [r.getMessage() for r in caplog.records if r.name == "credit" and r.levelname == "INFO"]
        caplog.clear()
        return found

    return take


def test_each_trainer_says_once_what_trains_it(train, make_trainer, lines):
    train("dgpo", {"tau": 0.05}, max_steps=1)
    (line,) = lines()
    assert line.startswith("TRL trains with dgpo: tau=0.05 (default 0.5), correction=1, eps=1e-06, ")
    assert line.endswith(f"kappa=1.0; {SOURCE}")
    make_trainer("rloo")
    assert lines() == ["TRL trains with rloo, which has no settings"]
    make_trainer()
    assert lines() == []


def test_the_settings_are_those_in_force(make_trainer, lines):
    """A preset's constants, and the weights of rewards that TRL's own option gives."""
    make_trainer("gdpo", {"preset": "trl"}, reward_weights=[3.0])
    (line,) = lines()
    settings = (
        "reward_weights=[3.0] (default None), eps=0.0001 (default 1e-06), over='responses', correction=1"
    )
    assert line == f"TRL trains with gdpo: {settings}"
