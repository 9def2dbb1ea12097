"""Whole commands, such as training runs, as a user starts them."""

import os
import signal
import subprocess

import pytest

TIMEOUT = 3600  # seconds; a run takes about a minute on two free cores, and any time on busy ones


def run_to_end(command, environment, folder):
    """What the command prints in the folder; it fails the test unless it ends well.

    What the command has started, such as Ray's processes, are in its session and end with it. Ray waits for
    its agents half a minute, which is too short for them on a busy machine.
    """
    process = subprocess.Popen(
        command,
        env=environment | {"RAY_agent_register_timeout_ms": str(1000 * TIMEOUT)},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired as late:
        pytest.fail(f"not done after {TIMEOUT} s; it printed {late.stdout[-6000:]}")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, printed[-8000:]
    return printed
