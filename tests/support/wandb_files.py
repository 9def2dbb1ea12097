"""What an offline run of Weights & Biases wrote, which wandb itself reads only to send it."""

import json
import struct
from pathlib import Path
from typing import Any

BLOCK, HEADER, WHOLE_OR_LAST = 32768, 7, (1, 4)  # LevelDB's log format, after 7 bytes of wandb's own


def read_history(folder: Path) -> list[dict]:
    """The rows that the only run below the folder logged, in order, with each value by its name."""
    rows = []
    for history in _read_all(folder, "history"):
        rows.append(row := {})
        for item in history.item:
            *places, last = item.nested_key or [item.key]
            inside = row
            for place in places:
                inside = inside.setdefault(place, {})
            inside[last] = json.loads(item.value_json)
    return rows


def read_step_metrics(folder: Path) -> dict[str, str]:
    """The metric at which the only run below the folder shows each other one, for those that name one."""
    return {metric.name: metric.step_metric for metric in _read_all(folder, "metric") if metric.step_metric}


def _read_all(folder: Path, kind: str) -> list[Any]:
    """What the only run below the folder wrote of that kind, in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("**/run-*.wandb")
    records = map(Record.FromString, _read_records(path.read_bytes()))
    return [getattr(record, kind) for record in records if record.WhichOneof("record_type") == kind]


def _read_records(content: bytes) -> list[bytes]:
    records, parts, place = [], [], HEADER
    while place + HEADER <= len(content):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        parts.append(content[place + HEADER : place + HEADER + length])
        place += HEADER + length
        if kind in WHOLE_OR_LAST:
            records.append(b"".join(parts))
            parts = []
    return records
