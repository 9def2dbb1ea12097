"""The user's command: what it covers, and that it fails where a bound is broken."""

import numpy as np
import pytest

import credit
from credit import check
from credit.backends.numpy import backend as numpy_backend


@pytest.fixture
def only_numpy(monkeypatch):
    numpy = next(check.list_places())
    monkeypatch.setattr(check, "list_places", lambda: iter([numpy]))


def test_every_library_here_is_within_its_bounds(capsys):
    assert check.main([]) == 0
    table = capsys.readouterr().out
    found = {place.library for place in check.list_places()}
    for library in found | set(credit.names()) | {"token_statistics", "log_probs_and_entropy"}:
        assert library in table
    assert f"{len(found) * (3 + len(credit.names()))} checks, 0 broken" in table or "cuda" in table


@pytest.mark.parametrize("field", range(4))
def test_a_wrong_statistic_is_found(only_numpy, monkeypatch, capsys, field):
    right = numpy_backend.token_statistics

    def wrong(*arguments):
        fields = list(right(*arguments))
        fields[field] = fields[field] + np.float32(2e-5) * (1 + abs(fields[field]))
        return tuple(fields)

    monkeypatch.setattr(numpy_backend, "token_statistics", wrong)
    assert check.main([]) == 1
    assert "1 broken" in capsys.readouterr().out


def test_a_wrong_estimator_and_a_failing_one_are_found(only_numpy, monkeypatch, capsys):
    right = credit.DGPO.weights
    monkeypatch.setattr(credit.DGPO, "weights", lambda *a: right(*a) * 1.001)
    monkeypatch.setattr(credit.RLOO, "advantages", lambda *_: 1 / 0)
    assert check.main([]) == 1
    table = capsys.readouterr().out
    assert "2 broken" in table
    assert "ZeroDivisionError" in table


def test_a_row_is_printed_before_the_next_check_runs(only_numpy, monkeypatch, capsys):
    def fail(place):
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "check_estimators", fail)
    with pytest.raises(KeyboardInterrupt):
        check.main([])
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.startswith("library")
    assert len(rows) == 3


@pytest.mark.parametrize(("argument", "status"), [("--help", 0), ("--libary", 2), ("numpy", 2)])
def test_help_and_unknown_arguments_check_nothing(monkeypatch, capsys, argument, status):
    monkeypatch.setattr(check, "list_places", lambda: pytest.fail("the checks were run"))
    with pytest.raises(SystemExit) as ended:
        check.main([argument])
    assert ended.value.code == status
    text = capsys.readouterr()
    assert "every array library and device" in text.out if status == 0 else argument in text.err
