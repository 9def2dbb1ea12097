"""One unit from its warm-up to its last evaluation, recorded as it goes and resumed where it stopped."""

import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from estimator_study import sampling, training
from estimator_study.journal import Journal, Unusable
from estimator_study.plan import Unit
from estimator_study.training import State
from estimator_study.warm_up import WarmUp

SAVE_EVERY = 20.0  # seconds


class Saver:
    """Says after each step whether to stop, and saves then and every so many seconds."""

    def __init__(self, journal: Journal, stop: Callable[[], bool]):
        self.journal, self.stop, self.saved = journal, stop, time.monotonic()

    def is_over(self, pack: Callable[[], dict[str, Any]]) -> bool:
        over = self.stop()
        if over or time.monotonic() - self.saved > SAVE_EVERY:
            self.journal.save(pack())
            self.saved = time.monotonic()
        return over


def work(
    unit: Unit, folder: Path, device: str, stop: Callable[[], bool], done: Callable[[int], None]
) -> None:
    """Runs the unit until it ends or `stop()`; `done(n)` is told of every n run-steps that are over.

    At least one step, of the warm-up or of the runs, is taken and saved. A failure outside of a single run
    fails all runs of the unit, and is recorded.
    """
    with Journal(folder, unit) as journal:
        if journal.finished:
            return
        try:
            _work(unit, journal, torch.device(device), Saver(journal, stop), done)
        except Unusable:
            raise
        except Exception:
            reason = traceback.format_exc(limit=-3)
            journal.write([_named(unit, {"run": run, "failed": reason}) for run in range(len(unit.runs))])
            journal.write([{"finished": True}])


def _work(
    unit: Unit, journal: Journal, device: torch.device, saver: Saver, done: Callable[[int], None]
) -> None:
    whole = journal.restore(device) or {}
    if "runs" in whole:
        state = training.unpack(unit, whole["runs"])
    else:
        warming = _warm_up(WarmUp(unit, device, whole.get("warm-up")), saver)
        if warming is None:
            return
        state = _begin(unit, journal, warming)
        if saver.is_over(lambda: {"runs": state.pack()}):
            return
    while not state.done:
        known = set(state.failed)
        records = training.step(state)
        records += [{"run": run, "failed": why} for run, why in state.failed.items() if run not in known]
        journal.write([_named(unit, record) for record in records + _evaluation(state)])
        done(len(unit.runs))
        if saver.is_over(lambda: {"runs": state.pack()}) and not state.done:
            return
    done((unit.settings.steps - state.step) * len(unit.runs))
    journal.write([{"finished": True}])
    journal.forget()


def _warm_up(warming: WarmUp, saver: Saver) -> WarmUp | None:
    """The warm-up when it is done; None where it was stopped before."""
    while not warming.done:
        warming.advance()
        if not warming.done and saver.is_over(lambda: {"warm-up": warming.pack()}):
            return None
    return warming


def _begin(unit: Unit, journal: Journal, warming: WarmUp) -> State:
    """The runs at their first evaluation, recorded and saved."""
    reference, warm_ups = warming.result()
    state = training.start(unit, reference)
    for run, (seed, _) in enumerate(unit.runs):
        reached = warm_ups[unit.seeds.index(seed)]
        journal.write([_named(unit, {"run": run, "warm_up": reached})])
        if not reached["accuracy"] > 0.0:
            state.failed[run] = f"the warm-up found no right answer in {reached['step']} steps"
            journal.write([_named(unit, {"run": run, "failed": state.failed[run]})])
    journal.write([_named(unit, record) for record in _evaluation(state)])
    journal.save({"runs": state.pack()})
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
