"""What an offline run of Weights & Biases wrote, which wandb itself reads only to send it."""

import json
import struct
from pathlib import Path

BLOCK, HEADER, WHOLE_OR_LAST = 32768, 7, (1, 4)  # LevelDB's log format, after 7 bytes of wandb's own


def read_history(folder: Path) -> list[dict]:
    """The rows that the only run below the folder logged, in order, with each value by its name."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("**/run-*.wandb")
    rows = []
    for data in _read_records(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            rows.append(row := {})
            for item in record.history.item:
                *places, last = item.nested_key or [item.key]
                inside = row
                for place in places:
                    inside = inside.setdefault(place, {})
                inside[last] = json.loads(item.value_json)
    return rows


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
