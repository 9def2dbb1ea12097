"""Completions with their credit as JSON lines: written during training, read by the views."""

import json
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from credit import validation
from credit.backends.arrays import to_numpy
from credit.estimators.base import Estimator
from credit.estimators.dgpo import DGPO
from credit.estimators.prepare import prepare_rollouts
from credit.estimators.redistributing import Redistributing
from credit.types import Array, Credit, Rollouts, TokenStatistics

FORMAT = 1
STATISTICS = TokenStatistics._fields
PER_TOKEN = ("mask", *STATISTICS, "turns", "scores", "weights", "advantages")


class Completion(BaseModel):
    """One line of a file of records: a completion, its reward, and numbers for each of its tokens.

    A statistic that was not computed is None as a whole; a number that is not finite is None in its
    place. Numbers have 9 significant digits, which is every float32 exactly.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1]
    step: int | None
    row: int
    group: int
    prompt: str | None
    reward: float | list[float | None] | None
    valid: bool
    """False for a row that took no part in its group; its weights and advantages are 0."""
    advantage: float | None
    """A_i, the response's own advantage: sum_t A_{i,t} / sum_t w_{i,t}."""
    progress: float | None
    estimator: dict[str, Any]
    """The settings, from which `credit.parse` makes the estimator again."""
    tokens: list[str]
    mask: list[Literal[0, 1]]
    log_probs: list[float | None] | None
    reference_log_probs: list[float | None] | None
    deviation: list[float | None] | None
    normalized_entropy: list[float | None] | None
    turns: list[int] | None
    scores: list[float | None] | None
    """What the estimator's softmax takes; None for `dgpo`, whose score is d h^kappa."""
    weights: list[float | None]
    advantages: list[float | None]

    @model_validator(mode="after")
    def _aligned(self) -> "Completion":
        for name in PER_TOKEN:
            values = getattr(self, name)
            if values is not None and len(values) != len(self.tokens):
                raise ValueError(f"{name} has {len(values)} entries for {len(self.tokens)} tokens")
        return self


def record(
    path: str | Path,
    *,
    tokens: Sequence[Sequence[str]],
    rollouts: Rollouts,
    result: Credit,
    estimator: Estimator,
    prompts: Sequence[str] | None = None,
    step: int | None = None,
) -> None:
    """Appends one JSON line per completion: its tokens with their statistics, weights and advantages.

    It copies to the host, and so synchronises a device. Call it on one process only.

    Args:
        path: the file; it and its folder are made where they do not exist.
        tokens: N lists of text pieces, the piece of column t at place t (`text_pieces` makes them). A
            list may end early, where only padding follows; its row's arrays are cut to its length.
        rollouts: what the estimator was called with, of numpy, torch, JAX or a library like them.
        result: what it returned.
        estimator: the estimator, for its settings.
        prompts: N texts.
        step: the training step.

    Raises:
        ValueError: shapes do not fit each other, or a token of the mask has no text piece.
    """
    validation.check_rollout_shapes(rollouts)
    rows, width = rollouts.mask.shape
    for name in ("weights", "advantages"):
        validation.check_shape(name, getattr(result, name), (rows, width), "the mask's [N, T]")
    _check_texts(tokens, prompts, to_numpy(rollouts.mask))
    arrays = _collect_arrays(rollouts, result, estimator)
    progress = rollouts.progress
    same = {
        "step": step,
        "progress": None if progress is None else _write_number(to_numpy(progress)),
        "estimator": json.loads(estimator.model_dump_json()),  # infinity as a string
    }
    lines = []
    for row, pieces in enumerate(tokens):
        own = {"format": FORMAT, "row": row, "prompt": None if prompts is None else prompts[row]} | same
        lines.append(_write_line(own | _describe_response(arrays, row), list(pieces), arrays, row))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("a", encoding="utf-8", errors="replace") as file:  # a lone surrogate
        file.write("".join(lines))


def read(path: str | Path) -> Iterator[Completion]:
    """The completions of a file of records, one at a time.

    Raises:
        ValueError: a line is no record; the message names the file, the line and the field.
    """
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield Completion.model_validate_json(line)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                where = ".".join(str(part) for part in first["loc"])
                what = f"{where}: {first['msg']}" if where else first["msg"]
                raise ValueError(f"{path}, line {number}: {what}") from None


def _check_texts(tokens: Sequence[Sequence[str]], prompts: Sequence[str] | None, mask: Any) -> None:
    """A ValueError unless every row has a prompt and pieces up to its last token."""
    rows, width = mask.shape
    for name, texts in (("tokens", tokens), ("prompts", prompts)):
        if texts is not None and len(texts) != rows:
            raise ValueError(f"{name} has {len(texts)} entries; expected {rows}, the mask's rows")
    for row, pieces in enumerate(tokens):
        if isinstance(pieces, str) or not all(isinstance(piece, str) for piece in pieces):
            raise ValueError(f"tokens[{row}] must be a list of strings; credit.lens.text_pieces makes it")
        last = int(np.flatnonzero(mask[row]).max(initial=-1))
        if not last < len(pieces) <= width:
            raise ValueError(
                f"tokens[{row}] has {len(pieces)} pieces; expected {last + 1} to {width}, since its last "
                f"token by the mask is in column {last} and the arrays have {width} columns"
            )


def _collect_arrays(rollouts: Rollouts, result: Credit, estimator: Estimator) -> dict[str, Any]:
    """What the lines need, on the host."""
    prepared = prepare_rollouts(estimator.name, rollouts, ())
    fields: dict[str, Array] = {name: getattr(rollouts, name) for name in ("rewards", "groups", "turns")}
    fields |= {"scores": None, "mask": rollouts.mask, "valid": prepared.valid}
    fields |= {name: getattr(rollouts, name) for name in STATISTICS}
    fields |= {"weights": result.weights, "advantages": result.advantages}
    if isinstance(estimator, Redistributing) and type(estimator).score is not DGPO.score:
        fields["scores"] = estimator.score(prepared)
    return {name: None if array is None else to_numpy(array) for name, array in fields.items()}


def _describe_response(arrays: dict[str, Any], row: int) -> dict[str, Any]:
    rewards, valid = arrays["rewards"][row], bool(arrays["valid"][row])
    chosen = arrays["mask"][row] != 0
    advantages, weights = (
        arrays[name][row][chosen].astype(float).sum() for name in ("advantages", "weights")
    )
    return {
        "group": int(arrays["groups"][row]),
        "reward": [_write_number(r) for r in rewards] if rewards.ndim else _write_number(rewards),
        "valid": valid,
        "advantage": _write_number(advantages / weights) if weights else 0.0,
    }


def _write_line(fields: dict[str, Any], pieces: list[str], arrays: dict[str, Any], row: int) -> str:
    """One JSON object; the numbers of the tokens are written by hand, for speed and for 9 digits."""
    head = json.dumps(fields | {"tokens": pieces}, ensure_ascii=False, allow_nan=False)
    parts = [head.removesuffix("}")]
    for name in PER_TOKEN:
        values = None if arrays[name] is None else arrays[name][row, : len(pieces)]
        parts.append(f'"{name}":{"null" if values is None else _write_numbers(values)}')
    return ",".join(parts) + "}\n"


def _write_numbers(values: Any) -> str:
    if values.dtype.kind in "bui":
        return "[" + ",".join(str(int(v)) for v in values.tolist()) + "]"
    return "[" + ",".join(f"{v:.9g}" if isfinite(v) else "null" for v in values.tolist()) + "]"


def _write_number(value: Any) -> float | None:
    return float(f"{float(value):.9g}") if isfinite(value) else None
