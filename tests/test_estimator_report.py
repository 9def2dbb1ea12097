"""The line of log that says what trains: every setting in it, and seen whether or not logging is configured."""

import subprocess
import sys
from typing import Literal

import pytest

import credit
from credit.adapters.estimator_report import report_estimator
from credit.adapters.framework import Framework

FRAMEWORK = Framework(
    name="Frame",
    distribution="frame",
    supported=">=1",
    provides=(),
    group_size="size",
    aggregations={},
    extra="nowhere",
    prefix="our_",
)


@pytest.fixture
def said(caplog):
    """The one line that is logged for an estimator."""

    def report(estimator, *arguments, **named):
        caplog.clear()
        report_estimator(FRAMEWORK, estimator, *arguments, **named)
        (record,) = caplog.records
        assert (record.name, record.levelname) == ("credit", "INFO")
        return record.getMessage()

    return report


def test_every_setting_is_named_and_what_is_changed_comes_first(said):
    text = said(credit.DGPO(kappa=0.5, tau=0.05), source="from somewhere")
    start = "Frame trains with our_dgpo: tau=0.05 (default 0.5), kappa=0.5 (default 1.0), correction=1, "
    assert text.startswith(start)
    assert text.endswith("; token statistics: deviation, normalized_entropy, from somewhere")
    for name in set(credit.DGPO.model_fields) - {"name", "loss"}:
        assert text.count(f" {name}=") == 1
    assert text.count("default") == 2


@pytest.mark.parametrize("name", sorted(set(credit.names()) - {"mix"}))
def test_no_default_passes_for_a_change(said, name):
    assert "default" not in said(credit.get(name))


def test_estimators_within_an_estimator_are_written_out(said):
    mix = credit.parse({"name": "mix", "parts": [[0.7, "rloo"], [0.3, {"name": "grpo", "eps": 0.1}]]})
    inner = "eps=0.1 (default 1e-06), correction=1, leave_one_out=False"
    assert said(mix) == f"Frame trains with our_mix: parts=[[0.7, rloo()], [0.3, grpo({inner})]]"
    assert "base=rloo() (default None), " in said(credit.DGPO(base="rloo"))
    schedule = "tau=Schedule(start=1.0, end=0.1, kind='linear') (default 0.5)"
    assert schedule in said(credit.DGPO(tau=credit.Schedule(start=1.0, end=0.1)))


def test_settings_of_the_adapters_own_are_named_too(said):
    own = [("divergence", "binary", "exact"), ("place", "here", "here")]
    text = said(credit.RLOO(), own)
    assert text == "Frame trains with our_rloo: divergence='binary' (default 'exact'), place='here'"
    assert said(credit.RLOO()) == "Frame trains with our_rloo, which has no settings"


def test_a_setting_without_a_default_is_no_change(said, own_registry):
    class Asked(credit.GRPO):
        name: Literal["asked"] = "asked"
        scale: float

    assert said(Asked(scale=2.0)).endswith("leave_one_out=False, scale=2.0")


PROGRAM = """
import logging
import credit
from credit.adapters.estimator_report import report_estimator
from credit.adapters.framework import Framework
frame = Framework(name="Frame", distribution="f", supported=">=1", provides=(), group_size="n", aggregations={{}}, extra="")
logger = logging.getLogger("credit")
{configure}
before = logger.level, list(logger.handlers)
report_estimator(frame, credit.RLOO())
assert (logger.level, logger.handlers) == before
"""
LINE = "Frame trains with rloo, which has no settings\n"


@pytest.mark.parametrize(
    ("configure", "printed"),
    [
        ("", LINE),
        ("logging.basicConfig()", f"INFO:credit:{LINE}"),
        ("logging.basicConfig(level='INFO')", f"INFO:credit:{LINE}"),
        ("logger.addHandler(logging.StreamHandler()); logger.propagate = False", LINE),
        ("logger.setLevel('WARNING')", ""),
        ("logging.basicConfig(); logger.setLevel('WARNING')", ""),
        ("logging.basicConfig(level='ERROR')", ""),
        ("logging.disable(logging.INFO)", ""),
    ],
)
def test_the_line_is_seen_once_unless_it_is_silenced(configure, printed):
    code = PROGRAM.format(configure=configure)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == printed
    assert not done.stdout
