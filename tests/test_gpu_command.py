"""The command for GPUs: limits, what stays of a part that is stopped, and going on; and, slow, its table."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))
import gpu  # noqa: E402
import measurements  # noqa: E402
import on_gpu  # noqa: E402

ROW = measurements.Case("", 2, 3, measurements.torch.float32)
STUBBORN = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
print("a row", flush=True)
time.sleep(600)
"""


@pytest.fixture
def parts(monkeypatch, tmp_path):
    """Stands in for the parts' commands by code; runs them and gives what became of each."""

    def run(limits=None, **code):
        def make_command(name, output, study, limit, rehearse):
            return ["-c", code[name], str(tmp_path / "written")]

        monkeypatch.setattr(on_gpu, "make_command", make_command)
        deadline = time.monotonic() + 600.0
        call = on_gpu.run_parts(tmp_path, limits or dict.fromkeys(code, 60.0), deadline, rehearse=True)
        assert json.loads((tmp_path / "on_gpu.json").read_text())["parts"] == call.parts
        return {name: part["outcome"] for name, part in call.parts.items()}

    return run


def test_a_part_that_does_not_end_is_ended_with_its_children_and_keeps_its_rows(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(on_gpu, "GRACE", 0.5)
    assert parts({"table": 5.0, "step": 60.0}, table=STUBBORN, step="pass") == {
        "table": "stopped",
        "step": "done",
    }
    assert "a row" in (tmp_path / "on_gpu.log").read_text()
    child = int((tmp_path / "written").read_text())
    status = Path(f"/proc/{child}/status")
    assert not status.exists() or "zombie" in status.read_text()


def test_what_is_done_is_not_run_again(parts):
    late = f"raise SystemExit({on_gpu.UNFINISHED})"
    assert parts(tests="pass", check="1 / 0", table=late) == {
        "tests": "done",
        "check": "failed",
        "table": "stopped",
    }
    assert parts(tests="1 / 0", check="pass", table="pass") == dict.fromkeys(
        ("tests", "check", "table"), "done"
    )


def test_the_exit_status_says_whether_something_failed(monkeypatch, tmp_path):
    for code, status in (("pass", 0), ("1 / 0", 1), (f"raise SystemExit({on_gpu.UNFINISHED})", 0)):
        monkeypatch.setattr(on_gpu, "make_command", lambda *_, code=code: ["-c", code])
        monkeypatch.setattr(
            sys, "argv", ["on_gpu.py", "--only", "table", "--output", str(tmp_path / code[:4])]
        )
        assert on_gpu.main() == status


@pytest.mark.parametrize("left", [sum(on_gpu.LIMITS.values()), 300.0, 90.0])
def test_no_part_takes_the_time_of_the_next(left):
    for name in on_gpu.LIMITS:
        limit = on_gpu.find_limit(name, on_gpu.LIMITS, left)
        assert limit <= max(left, 0.0)
        left -= limit
    assert left == pytest.approx(0.0)


def test_an_early_part_leaves_its_time_to_the_last():
    assert on_gpu.find_limit("study", on_gpu.LIMITS, 300.0) == 300.0


def test_rows_are_measured_once_and_wrong_ones_again(tmp_path):
    def measure(function):
        report = measurements.Report("cpu", "this", tmp_path)
        report.resume()
        report.keep()
        report.measure(ROW, "one", lambda: None)
        report.measure(ROW, "other", function)
        report.measure(ROW, "absent", lambda: __import__("no_such_package"))
        return report

    def refused():
        raise AssertionError("measured again")

    first = measure(lambda: 1 / 0)
    assert [row["who"] for row in first.failures] == ["other"]
    assert gpu.conclude(first, []) == 1
    second = measure(lambda: None)
    assert second.rows[0]["ms_p20_p80"] == first.rows[0]["ms_p20_p80"]
    assert gpu.conclude(second, []) == 0
    assert gpu.conclude(measure(refused), []) == 0
    saved = json.loads(first.path.read_text())["rows"]
    assert [("ms" in row, "not_installed" in row) for row in saved] == [(True, False)] * 2 + [(False, True)]


def test_rows_left_out_are_no_failure_but_the_table_is_not_done(tmp_path):
    report = measurements.Report("cpu", "this", tmp_path)
    report.deadline = 0.0
    report.measure(ROW, "one", lambda: None)
    assert gpu.conclude(report, []) == on_gpu.UNFINISHED


def test_wrong_numbers_fail_their_row():
    import workloads

    import credit

    x, y, ids = workloads.draw(measurements.Case("", 4, 50, measurements.torch.float32), "cpu")
    found = credit.token_statistics(x, y, ids)
    workloads.check(found, x, y, ids, 50)
    with pytest.raises(AssertionError, match="allowed"):
        workloads.check(found._replace(deviation=1.01 * found.deviation), x, y, ids, 50)


@pytest.mark.slow
def test_the_table_in_the_interpreter(tmp_path):
    command = [
        sys.executable,
        BENCHMARKS / "on_gpu.py",
        "--rehearse",
        "--only",
        "table",
        "--output",
        tmp_path,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    rows = json.loads((tmp_path / "token_statistics_rehearsal.json").read_text())["rows"]
    assert all("ms" in row or "not_installed" in row for row in rows)


def test_benchmarks_need_nothing_that_other_systems_lack():
    """As on Windows and, in part, macOS; what is measured without it is NaN, or is not cut short."""
    code = """if True:
    import os, pathlib, signal, sys, time
    import torch
    for module, name in ((os, "EX_TEMPFAIL"), (os, "killpg"), (os, "sched_getaffinity"), (signal, "SIGALRM")):
        delattr(module, name)
    sys.modules["resource"] = None
    read = pathlib.Path.read_text
    def read_text(path, *more, **named):
        if str(path).startswith("/proc"):
            raise FileNotFoundError(path)
        return read(path, *more, **named)
    pathlib.Path.read_text = read_text
    import gpu, measurements, memory, on_gpu
    assert memory.start("cpu") != memory.highest("cpu")  # NaN
    assert measurements.cpu_name()
    assert measurements.attempt(lambda: None, time.monotonic() + 60.0) is None
    process = on_gpu.subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    assert on_gpu.wait(process, 0.5) is None
    assert process.returncode
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=BENCHMARKS
    )
    assert done.returncode == 0, done.stderr
