"""Runs a script as several ranks of one job on this machine."""

import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack

# Seconds: a guard against ranks that wait for each other, not a bound on their speed. A script gives it to what
# would wait for a shorter time: `timeout` of torch's process group (30 minutes), `ddp_timeout` of transformers.
TIMEOUT = 3600
PORTS = range(20_000, 32_000)  # below those that the kernel gives to connections of others meanwhile


def run(script, ranks, *arguments, **environment):
    """Starts `script` once per rank with torch's variables set, and fails with what failing ranks printed.

    As soon as one has failed, those that would wait for it are killed.
    """
    port = str(_find_port())
    shared = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"DEEPSPEED_TIMEOUT": str(TIMEOUT // 60)}  # minutes; 10 if it is not set
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
        codes = [process.poll() for process in processes]
        said = [f"rank {rank} printed: {_read_end(errors)}" for rank, errors in enumerate(printed)]
    assert finished, "\n".join([f"the ranks were not done after {TIMEOUT} s", *said])
    failed = [text for text, code in zip(said, codes, strict=True) if code]
    assert not failed, "\n".join(failed)


def _find_port():
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port in {PORTS}")


def _read_end(errors):
    errors.seek(0)
    return errors.read()[-3000:]


def _finish(processes, deadline):
    """Waits until all ranks are done or one has failed; False where time ran out."""
    while True:
        codes = [process.poll() for process in processes]  # of all of them: `any` would stop at one that runs
        if any(codes) or None not in codes:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
