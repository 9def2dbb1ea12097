"""Units over processes of one thread each, with progress over runs and steps and the time left."""

import multiprocessing
import os
import sys
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from estimator_study import journal
from estimator_study.journal import Standing
from estimator_study.plan import Unit

LEAST = 5.0  # seconds of work, where importing torch takes all of a short limit

_steps: Any = None  # in a worker: the queue that tells the parent of run-steps that are over


def run(units: list[Unit], folder: Path, device: str, workers: int, time_limit: float | None) -> bool:
    """Works off the units until all are finished, or the limit in seconds is over; whether all are.

    Repeated calls come to an end: whatever the start has left of the limit, one unit gets some seconds of it,
    and takes a step at least.
    """
    deadline = time.time() + time_limit if time_limit else float("inf")
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the workers when they load torch
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    before = [journal.standing(folder, unit) for unit in units]
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(queue,)) as pool:
        left = [unit for unit, standing in zip(units, before, strict=True) if not standing.finished]
        futures = [
            pool.submit(
                _work, unit, folder, device, deadline, None if number else min(time_limit or 0.0, LEAST)
            )
            for number, unit in enumerate(left)
        ]
        try:
            _watch(before, futures, queue)
            after = [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return all(standing.finished for standing in after)


def _watch(before: list[Standing], futures: list["Future[Standing]"], queue: Any) -> None:
    """Draws the progress until nothing is left to do, or something broke."""
    runs = sum(standing.runs for standing in before)
    whole = sum(standing.all_steps for standing in before)
    over = sum(standing.steps for standing in before)
    patience = 0.5 if sys.stderr.isatty() else 30.0
    with tqdm(
        total=whole, initial=over, unit=" steps", smoothing=0, dynamic_ncols=True, mininterval=patience
    ) as bar:
        while True:
            ended = [future for future in futures if future.done()]
            while not queue.empty():
                bar.update(queue.get())
            if any(future.exception() for future in ended):
                return
            standings = [s for s in before if s.finished] + [future.result() for future in ended]
            finished = sum(standing.runs for standing in standings if standing.finished)
            bar.set_postfix_str(
                f"{finished}/{runs} runs, {sum(s.failures for s in standings)} failed", refresh=False
            )
            if len(ended) == len(futures):
                return
            time.sleep(0.5)


def _begin(queue: Any) -> None:
    import torch

    global _steps
    _steps = queue
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Nobody would tell the worker of a killed study to stop, and the records bear a sudden end."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _work(unit: Unit, folder: Path, device: str, deadline: float, least: float | None) -> Standing:
    """Works until the deadline, or, if given, for at least so many seconds after a first step."""
    from estimator_study.work import work

    first: list[float] = []

    def stop() -> bool:
        first[:] = first or [time.time()]  # when the first step, for which torch loads the most, is over
        return time.time() >= max(deadline, first[0] + (least or 0.0))

    if least is not None or time.time() < deadline:
        work(unit, folder, device, stop, _steps.put)
    return journal.standing(folder, unit)
