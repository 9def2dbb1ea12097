"""A unit's records as JSON lines, and the checkpoint from which they go on."""

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch

from estimator_study import training
from estimator_study.plan import Unit
from estimator_study.training import Record, State


class Journal:
    """Opened for one unit by one process at a time; another waits until it is closed."""

    def __init__(self, folder: Path, unit: Unit):
        folder.mkdir(parents=True, exist_ok=True)
        self.unit = unit
        self.path = folder / f"{unit.name}.jsonl"
        self.checkpoint = folder / f"{unit.name}.pt"

    def __enter__(self) -> "Journal":
        self.file = self.path.open("a+b")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        self.finished = standing(self.path.parent, self.unit).finished
        begun = bool(read(self.path)) and self.checkpoint.exists()
        if not (self.finished or begun):
            self.forget()
            self._cut(0)
            self.write([self.unit.description()])
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.file.close()

    def write(self, records: list[Record]) -> None:
        """Appends, and hands to the system at once."""
        self.file.write(b"".join(json.dumps(record).encode() + b"\n" for record in records))
        self.file.flush()

    def save(self, state: State) -> None:
        """The runs and the length of the records that led to them."""
        whole = {
            "bytes": self.file.tell(),
            "step": state.step,
            "failed": state.failed,
            "parameters": {name: p.detach() for name, p in state.parameters.items()},
            "reference": state.reference,
            "optimizer": state.optimizer.state_dict(),
        }
        fresh = self.checkpoint.with_suffix(".new")
        torch.save(whole, fresh)
        os.replace(fresh, self.checkpoint)

    def restore(self, device: torch.device) -> State | None:
        """The runs as saved, with the records after them taken back; None where nothing was saved."""
        if not self.checkpoint.exists():
            return None
        whole = torch.load(self.checkpoint, map_location=device, weights_only=True)
        self._cut(whole["bytes"])
        state = training.start(self.unit, whole["reference"])
        with torch.no_grad():
            for name, parameter in state.parameters.items():
                parameter.copy_(whole["parameters"][name])
        state.optimizer.load_state_dict(whole["optimizer"])
        state.step, state.failed = whole["step"], whole["failed"]
        return state

    def forget(self) -> None:
        """Removes the checkpoint of a finished unit."""
        self.checkpoint.unlink(missing_ok=True)

    def _cut(self, size: int) -> None:
        self.file.truncate(size)
        self.file.seek(0, os.SEEK_END)


def read(path: Path) -> list[Record]:
    """The records of a file; a last line that was cut off is left out."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


@dataclass(frozen=True)
class Standing:
    """How far a unit is: run-steps, runs, failed ones among them."""

    finished: bool
    steps: int
    all_steps: int
    runs: int
    failures: int


def standing(folder: Path, unit: Unit) -> Standing:
    """What the unit's records say.

    Raises:
        ValueError: they were written with other settings.
    """
    path = folder / f"{unit.name}.jsonl"
    records = read(path)
    if records and records[0] != unit.description():
        raise ValueError(f"{path} was written with other settings; give another --output")
    runs, whole = len(unit.runs), len(unit.runs) * unit.settings.steps
    finished = bool(records) and "finished" in records[-1]
    steps = max((record.get("step", 0) for record in records), default=0)
    failures = sum("failed" in record for record in records)
    return Standing(finished, whole if finished else steps * runs, whole, runs, failures)
