"""One unit from its warm-up to its last evaluation, recorded as it goes and resumed where it stopped."""

import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from estimator_study import sampling, training
from estimator_study.journal import Journal
from estimator_study.plan import Unit
from estimator_study.training import State
from estimator_study.warm_up import warm_up

SAVE_EVERY = 20.0  # seconds


def work(
    unit: Unit, folder: Path, device: str, stop: Callable[[], bool], done: Callable[[int], None]
) -> None:
    """Runs the unit until it ends or `stop()`; `done(n)` is told of every n run-steps that are over.

    A failure outside of a single run fails all runs of the unit, and is recorded.
    """
    with Journal(folder, unit) as journal:
        if journal.finished:
            return
        try:
            _work(unit, journal, torch.device(device), stop, done)
        except Exception:
            reason = traceback.format_exc(limit=-3)
            journal.write([_named(unit, {"run": run, "failed": reason}) for run in range(len(unit.runs))])
            journal.write([{"finished": True}])


def _work(
    unit: Unit, journal: Journal, device: torch.device, stop: Callable[[], bool], done: Callable[[int], None]
) -> None:
    state = journal.restore(device) or _begin(unit, journal, device, stop)
    if state is None:
        return
    saved = time.monotonic()
    while state.step < unit.settings.steps and state.alive:
        if stop() or time.monotonic() - saved > SAVE_EVERY:
            journal.save(state)
            saved = time.monotonic()
            if stop():
                return
        known = set(state.failed)
        records = training.step(state)
        records += [{"run": run, "failed": why} for run, why in state.failed.items() if run not in known]
        journal.write([_named(unit, record) for record in records + _evaluation(state)])
        done(len(unit.runs))
    done((unit.settings.steps - state.step) * len(unit.runs))
    journal.write([{"finished": True}])
    journal.forget()


def _begin(unit: Unit, journal: Journal, device: torch.device, stop: Callable[[], bool]) -> State | None:
    warmed = warm_up(unit, device, stop)
    if warmed is None:
        return None
    reference, warm_ups = warmed
    state = training.start(unit, reference)
    for run, (seed, _) in enumerate(unit.runs):
        reached = warm_ups[unit.seeds.index(seed)]
        journal.write([_named(unit, {"run": run, "warm_up": reached})])
        if not reached["accuracy"] > 0.0:
            state.failed[run] = f"the warm-up found no right answer in {reached['step']} steps"
            journal.write([_named(unit, {"run": run, "failed": state.failed[run]})])
    journal.write([_named(unit, record) for record in _evaluation(state)])
    journal.save(state)
    return state


def _evaluation(state: State) -> list[training.Record]:
    settings = state.unit.settings
    last = state.step == settings.steps
    if state.step % settings.evaluate_every and not last:
        return []
    prompts = settings.final_prompts if last else settings.evaluation_prompts
    found = sampling.evaluate(state.unit, state.parameters, prompts, f"evaluation {state.step}")
    return [{"run": run, "evaluated": state.step, **found[run]} for run in state.alive]


def _named(unit: Unit, record: training.Record) -> training.Record:
    """The record with its run's seed and estimator in place of its number."""
    seed, estimator = unit.runs[record["run"]]
    return {"seed": seed, "estimator": estimator} | {k: v for k, v in record.items() if k != "run"}
