"""Runs a script as several ranks of one job on this machine."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack

# Seconds: a guard against ranks that wait for each other, not a bound on their speed.
TIMEOUT = 3600


def run(script, ranks, *arguments, **environment):
    """Starts `script` once per rank with torch's variables set, and fails with what a failing rank printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | environment
    with ExitStack() as stack:
        # Files, since a rank that fills a pipe which nobody reads yet would stop all of them.
        printed = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(ranks)]
        processes = [
            subprocess.Popen(
                [sys.executable, script, *arguments],
                env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.DEVNULL,
                stderr=printed[rank],
            )
            for rank in range(ranks)
        ]
        for process in processes:
            stack.enter_context(process)
            stack.callback(process.kill)
        finished = _finish(processes, time.monotonic() + TIMEOUT)
        for process, errors in zip(processes, printed, strict=True):
            errors.seek(0)
            assert finished, (
                f"the ranks were not done after {TIMEOUT} s; one printed: {errors.read()[-3000:]}"
            )
            assert process.returncode == 0, errors.read()[-3000:]


def _finish(processes, deadline):
    """Waits until all ranks are done or one has failed; False where time ran out."""
    while any(process.poll() is None for process in processes):
        if any(process.returncode for process in processes):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
