"""The user's command: what it covers, and that it fails where a bound is broken."""

import numpy as np
import pytest

import credit
from credit import check, log_ratios, validation
from credit.backends.numpy import backend as numpy_backend
from credit.selftest import gradients


@pytest.fixture
def only_numpy(monkeypatch):
    numpy = check.list_places()[0]
    monkeypatch.setattr(check, "list_places", lambda: [numpy])


def test_every_library_here_is_within_its_bounds(capsys):
    assert check.main([]) == 0
    table = capsys.readouterr().out
    found = {place.library for place in check.list_places()}
    for library in found | set(credit.names()) | {"token_statistics", "loss at overflowing ratios"}:
        assert library in table
    count = len(found) * (5 + len(credit.names())) + ("jax" in found)
    assert f"{count} checks, 0 broken" in table or "cuda" in table


@pytest.mark.parametrize("field", [0, 1, 2, 3, 5])
def test_a_wrong_statistic_is_found(only_numpy, monkeypatch, capsys, field):
    right = numpy_backend.token_statistics

    def wrong(*arguments):
        fields = list(right(*arguments))
        if field < len(fields):  # else it is not asked for
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
    assert len(rows) == 5


@pytest.mark.parametrize(("argument", "status"), [("--help", 0), ("--libary", 2), ("numpy", 2)])
def test_help_and_unknown_arguments_check_nothing(monkeypatch, capsys, argument, status):
    monkeypatch.setattr(check, "list_places", lambda: pytest.fail("the checks were run"))
    with pytest.raises(SystemExit) as ended:
        check.main([argument])
    assert ended.value.code == status
    text = capsys.readouterr()
    assert "every array library and device" in text.out if status == 0 else argument in text.err


def test_ratios_that_overflow_are_found(monkeypatch):
    monkeypatch.setattr(log_ratios, "LARGEST_LOG_RATIO", 1e30)
    with np.errstate(all="ignore"):
        rows = [row for place in check.list_places() for row in check.check_loss(place)]
    assert rows
    assert [row for row in rows if not row.is_broken] == []


def test_a_gradient_that_is_nan_is_found(monkeypatch):
    """Though the loss is right: what a clip holds back has the gradient 0 * inf."""
    monkeypatch.setattr(gradients, "LOSS", 0.0)
    monkeypatch.setattr(gradients, "_value_and_grad", lambda *_: (0.0, gradients.GRADIENT * np.nan))
    rows = [row for place in check.list_places() for row in check.check_loss(place) if not row.note]
    assert [row for row in rows if not row.is_broken] == []


def test_a_check_of_ids_that_is_traced_is_found(monkeypatch):
    pytest.importorskip("jax")
    monkeypatch.setattr(validation, "check_token_ids", lambda ids, mask, size: bool((ids < size).all()))
    rows = [row for place in check.list_places() for row in check.check_closed_over_ids(place)]
    assert {row.place.library for row in rows} == {"jax"}
    assert [row for row in rows if not (row.is_broken and "TracerBool" in row.note)] == []
