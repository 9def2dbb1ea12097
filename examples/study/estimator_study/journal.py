"""A unit's records as JSON lines, and the checkpoint from which they go on."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from filelock import FileLock

from estimator_study.plan import Settings, Unit
from estimator_study.training import Record


class Unusable(ValueError):
    """A file from which no study, or not this one, can go on."""


class Journal:
    """Opened for one unit by one process at a time; another waits until it is closed."""

    def __init__(self, folder: Path, unit: Unit):
        folder.mkdir(parents=True, exist_ok=True)
        self.unit = unit
        self.path = folder / f"{unit.name}.jsonl"
        self.checkpoint = checkpoint_of(self.path)
        self.lock = FileLock(self.path.with_suffix(".lock"))  # a file of its own, as Windows needs

    def __enter__(self) -> "Journal":
        self.lock.acquire()
        try:
            self.finished = standing(self.path.parent, self.unit).finished
            begun = bool(read(self.path)) and self.checkpoint.exists()
            self.file = self.path.open("a+b")
        except BaseException:
            self.lock.release()
            raise
        if not (self.finished or begun):
            self.forget()
            self._cut(0)
            self.write([self.unit.description()])
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.file.close()
        self.lock.release()

    def write(self, records: list[Record]) -> None:
        """Appends, and hands to the system at once."""
        self.file.write(b"".join(json.dumps(record).encode() + b"\n" for record in records))
        self.file.flush()

    def save(self, whole: dict[str, Any]) -> None:
        """What the unit goes on from, and the length of the records that led to it."""
        fresh = self.checkpoint.with_suffix(".new")
        torch.save(whole | {"bytes": self.file.tell()}, fresh)
        os.replace(fresh, self.checkpoint)

    def restore(self, device: torch.device) -> dict[str, Any] | None:
        """What was saved, with the records after it taken back; None where nothing was saved.

        Raises:
            Unusable: the file is not a checkpoint.
        """
        if not self.checkpoint.exists():
            return None
        try:
            whole = torch.load(self.checkpoint, map_location=device, weights_only=True)
            self._cut(whole.pop("bytes"))
        except Exception as error:
            raise Unusable(f"{self.checkpoint} is no checkpoint. {anew(self.path)}") from error
        return whole

    def forget(self) -> None:
        """Removes the checkpoint of a finished unit."""
        self.checkpoint.unlink(missing_ok=True)

    def _cut(self, size: int) -> None:
        self.file.truncate(size)
        self.file.seek(0, os.SEEK_END)


def checkpoint_of(path: Path) -> Path:
    return path.with_suffix(".pt")


def anew(path: Path) -> str:
    """How to compute a journal's unit once more."""
    checkpoint = checkpoint_of(path)
    files = f"{path} and {checkpoint}" if checkpoint.exists() else f"{path}"
    return f"To compute this unit anew, delete {files} and give the command of the study again."


def read(path: Path) -> list[Record]:
    """The records of a file; a last line that was cut off is left out.

    Raises:
        Unusable: a line before the last is no record.
    """
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [_parse(line, number, path) for number, line in enumerate(lines, start=1)]


def read_first(path: Path) -> Record | None:
    """The record of the unit, without the others, which may be many; None in an empty file."""
    with path.open("rb") as file:
        line = file.readline()
    return _parse(line, 1, path) if line.endswith(b"\n") else None


def _parse(line: bytes, number: int, path: Path) -> Record:
    """A line's record: the unit in the first, what befell a run or the end of all in the others."""
    try:
        record = json.loads(line)
    except ValueError:  # of JSON or of UTF-8
        record = None
    expected = [{"task", "length", "seeds", "estimators", "settings"}]
    if number > 1:
        expected = [{"seed", "estimator"}, {"finished"}]
    if isinstance(record, dict) and any(keys <= record.keys() for keys in expected):
        return record
    start = line[:60].decode(errors="replace")
    raise Unusable(f"{path}, line {number} is no record of a study: {start!r}. {anew(path)}")


def refuse_mixture(folder: Path, estimators: dict[str, Any], settings: Settings) -> None:
    """Refuses a folder with records of other estimators or settings, on whatever task: a report has all.

    Raises:
        Unusable: there is such a record.
    """
    own = {"estimators": estimators, "settings": asdict(settings)}
    for path in sorted(folder.glob("*.jsonl")):
        unit = read_first(path)
        if unit and any(unit[key] != value for key, value in own.items()):
            raise Unusable(f"{path} was written with other estimators or settings; give another --output")


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
        Unusable: they were written with other settings, or cannot be read.
    """
    path = folder / f"{unit.name}.jsonl"
    records = read(path)
    if records and records[0] != unit.description():
        raise Unusable(f"{path} was written with other settings; give another --output")
    runs, whole = len(unit.runs), len(unit.runs) * unit.settings.steps
    finished = bool(records) and "finished" in records[-1]
    steps = max((record.get("step", 0) for record in records), default=0)
    failures = sum("failed" in record for record in records)
    return Standing(finished, whole if finished else steps * runs, whole, runs, failures)
