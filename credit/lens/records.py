"""Files of completions with the credit of each token: written during training, read by the views."""

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from credit.estimators.base import Estimator
from credit.lens.completion import Completion
from credit.lens.lines import format_records
from credit.types import Credit, Rollouts

BLOCK = 2**16  # bytes read at once from the end of a file
START = b'{"format":'  # of a record


def record(
    path: str | Path,
    *,
    tokens: Sequence[Sequence[str]],
    rollouts: Rollouts,
    result: Credit,
    estimator: Estimator,
    prompts: Sequence[str] | None = None,
    step: int | None = None,
    extra: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Appends one JSON line per completion: its tokens with their statistics, weights and advantages.

    It is `append_records` of `format_records`. Where several processes train, call it on one of them.

    Args:
        path: the file. It and its folder are made where they do not exist.
        tokens: as for `format_records`, which describes these arguments.
        rollouts: what the estimator was called with, of any array library.
        result: what the estimator returned.
        estimator: the estimator, whose settings are recorded.
        prompts: N texts.
        step: the training step.
        extra: further values of the completions by name, N each.

    Raises:
        ValueError: as of `format_records`; nothing is written then.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from credit import GRPO, Rollouts, lens
        >>> rollouts = Rollouts(np.array([1.0, 0.0]), np.array([0, 0]), np.array([[1, 1], [1, 0]]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     lens.record(
        ...         f"{folder}/samples.jsonl",
        ...         tokens=[["4", "2"], ["7"]],
        ...         rollouts=rollouts,
        ...         result=GRPO()(rollouts),
        ...         estimator=GRPO(),
        ...         step=3,
        ...         extra={"answer": ["42", "42"]},
        ...     )
        ...     lines = list(lens.read(f"{folder}/samples.jsonl"))
        >>> [(line.step, line.reward, line.tokens, line.answer) for line in lines]
        [(3, 1.0, ['4', '2'], '42'), (3, 0.0, ['7'], '42')]
    """
    lines = format_records(
        tokens=tokens,
        rollouts=rollouts,
        result=result,
        estimator=estimator,
        prompts=prompts,
        step=step,
        extra=extra,
    )
    append_records(path, lines)


def append_records(path: str | Path, lines: Iterable[str]) -> None:
    """Appends lines from `format_records` to a file, which is made, as its folder is, where there is none.

    The beginning of a record that a process was stopped in writing is cut off; any other last line is ended.

    Example:
        >>> import tempfile
        >>> from credit import lens
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     lens.append_records(f"{folder}/made/samples.jsonl", [])
        ...     list(lens.read(f"{folder}/made/samples.jsonl"))
        []
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("a+b") as file:
        file.write(_end_last_line(file) + "".join(lines).encode())


def _end_last_line(file: BinaryIO) -> bytes:
    """Cuts off the beginning of a record that a process left; returns the line break that another lacks."""
    size = start = file.seek(0, os.SEEK_END)
    tail = b""
    while start and b"\n" not in tail:
        start = max(0, start - BLOCK)
        file.seek(start)
        tail = file.read(size - start)
    last = tail.rpartition(b"\n")[2]
    if not last:
        return b""
    if _is_json(last) or last[: len(START)] != START[: len(last)]:  # whole, or not ours to cut
        return b"\n"
    file.truncate(size - len(last))
    return b""


def read(path: str | Path) -> Iterator[Completion]:
    """Yields the completions of a file of records, one at a time.

    A last line without its line break, such as a training writes at the moment, is left out with a warning
    if it is not a record.

    Raises:
        ValueError: a line is not a record; the message names the file, the line and the field.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from credit import lens
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "samples.jsonl"
        ...     _ = path.write_text("")
        ...     list(lens.read(path))
        []
    """
    with Path(path).open("rb") as file:
        yield from parse_records(_drop_cut_line(file, str(path)), str(path))


def _drop_cut_line(lines: Iterable[bytes], source: str) -> Iterator[bytes]:
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n") and not _is_json(line):
            warnings.warn(f"{source}, line {number} is not whole, and is left out", stacklevel=4)
            return
        yield line


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def parse_records(lines: Iterable[str | bytes], source: str = "records") -> Iterator[Completion]:
    """Yields the completions of JSON lines, such as `format_records` makes; empty lines are skipped.

    Args:
        lines: the lines, with or without their line breaks.
        source: what an error calls them.

    Raises:
        ValueError: a line is not a record; the message names the source, the line and the field.

    Example:
        >>> import numpy as np
        >>> from credit import GRPO, Rollouts, lens
        >>> rollouts = Rollouts(np.array([1.0]), np.array([0]), np.array([[1]]))
        >>> lines = lens.format_records(
        ...     tokens=[["4"]], rollouts=rollouts, result=GRPO()(rollouts), estimator=GRPO()
        ... )
        >>> [completion.tokens for completion in lens.parse_records(lines)]
        [['4']]
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield Completion.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            what = f"{where}: {first['msg']}" if where else first["msg"]
            raise ValueError(f"{source}, line {number}: {what}") from None
