"""The JSON lines of completions: tokens with their statistics, weights and advantages, and further fields."""

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np

from credit import validation
from credit.backends.arrays import to_numpy
from credit.estimators.base import Estimator
from credit.estimators.dgpo import DGPO
from credit.estimators.prepare import prepare_rollouts
from credit.estimators.redistributing import Redistributing
from credit.lens.completion import FORMAT, PER_TOKEN, STATISTICS
from credit.lens.extra import convert_extra
from credit.types import Array, Credit, Rollouts


def format_records(
    *,
    tokens: Sequence[Sequence[str]],
    rollouts: Rollouts,
    result: Credit,
    estimator: Estimator,
    prompts: Sequence[str] | None = None,
    step: int | None = None,
    extra: Mapping[str, Sequence[Any]] | None = None,
) -> list[str]:
    """The JSON lines of N completions, each with its line break, which `append_records` puts into a file.

    The arrays are copied to the host, which synchronizes a device.

    Args:
        tokens: N lists of text pieces, as `text_pieces` makes them: entry t is the text of column t. A
            list may end where only padding follows; the arrays of its row are cut to its length.
        rollouts: what the estimator was called with, of any array library.
        result: what the estimator returned.
        estimator: the estimator, whose settings are recorded.
        prompts: N texts.
        step: the training step.
        extra: further values of the completions by name, N each, which become fields of the lines: what
            JSON can hold, and arrays and scalars of any library. A number that is not finite becomes null.

    Raises:
        ValueError: shapes do not fit each other, a token of the mask has no text piece, or `extra` has a
            name that every completion has, another number of values, or a value that JSON cannot hold.

    Example:
        >>> import json
        >>> import numpy as np
        >>> from credit import GRPO, Rollouts, lens
        >>> rollouts = Rollouts(np.array([1.0]), np.array([0]), np.array([[1]]))
        >>> (line,) = lens.format_records(
        ...     tokens=[["4"]], rollouts=rollouts, result=GRPO()(rollouts), estimator=GRPO(), step=3
        ... )
        >>> json.loads(line)["tokens"]
        ['4']
    """
    validation.check_rollout_shapes(rollouts)
    rows, width = rollouts.mask.shape
    for name in ("weights", "advantages"):
        validation.check_shape(name, getattr(result, name), (rows, width), "the mask's [N, T]")
    _check_texts(tokens, prompts, to_numpy(rollouts.mask))
    further = convert_extra(extra, rows)
    arrays = _collect_arrays(rollouts, result, estimator)
    progress = rollouts.progress
    of_batch = {
        "step": step,
        "progress": None if progress is None else _write_number(to_numpy(progress)),
        "estimator": json.loads(estimator.model_dump_json()),  # which writes infinity as a string
    }
    lines = []
    for row, pieces in enumerate(tokens):
        of_row = {"format": FORMAT, "row": row, "prompt": None if prompts is None else prompts[row]}
        fields = of_row | of_batch | _describe_response(arrays, row) | further[row]
        lines.append(_write_line(fields, list(pieces), arrays, row))
    return lines


def _check_texts(tokens: Sequence[Sequence[str]], prompts: Sequence[str] | None, mask: Any) -> None:
    """Raises a ValueError unless every row has a prompt, and text pieces up to its last token."""
    rows, width = mask.shape
    for name, texts in (("tokens", tokens), ("prompts", prompts)):
        if texts is not None and len(texts) != rows:
            raise ValueError(f"{name} has {len(texts)} entries; expected {rows}, the mask's rows")
    for row, pieces in enumerate(tokens):
        if isinstance(pieces, str) or not all(isinstance(piece, str) for piece in pieces):
            raise ValueError(f"tokens[{row}] must be a list of strings; make it with credit.lens.text_pieces")
        last = int(np.flatnonzero(mask[row]).max(initial=-1))
        if not last < len(pieces) <= width:
            raise ValueError(
                f"tokens[{row}] has {len(pieces)} pieces; expected {last + 1} to {width}, since the last "
                f"token of its mask is in column {last} and the arrays have {width} columns"
            )


def _collect_arrays(rollouts: Rollouts, result: Credit, estimator: Estimator) -> dict[str, Any]:
    """The arrays that the lines are written from, as numpy arrays; None for those that do not exist."""
    prepared = prepare_rollouts(estimator.name, rollouts, ())
    fields: dict[str, Array] = {name: getattr(rollouts, name) for name in ("rewards", "groups", "turns")}
    fields |= {"scores": None, "mask": rollouts.mask, "valid": prepared.valid}
    fields |= {name: getattr(rollouts, name) for name in STATISTICS}
    fields |= {"weights": result.weights, "advantages": result.advantages}
    if isinstance(estimator, Redistributing) and type(estimator).score is not DGPO.score:
        fields["scores"] = estimator.score(prepared)
    return {name: None if array is None else to_numpy(array) for name, array in fields.items()}


def _describe_response(arrays: dict[str, Any], row: int) -> dict[str, Any]:
    rewards = arrays["rewards"][row]
    return {
        "group": int(arrays["groups"][row]),
        "reward": [_write_number(r) for r in rewards] if rewards.ndim else _write_number(rewards),
        "valid": bool(arrays["valid"][row]),
        "advantage": _advantage_of_response(arrays, row),
    }


def _advantage_of_response(arrays: dict[str, Any], row: int) -> float | None:
    """A_i = sum_t A_{i,t} / sum_t w_{i,t} over the tokens that have both; None if no token has."""
    chosen = arrays["mask"][row] != 0
    advantages, weights = (arrays[name][row][chosen].astype(float) for name in ("advantages", "weights"))
    known = np.isfinite(advantages) & np.isfinite(weights)
    if not known.any() and chosen.any():
        return None
    total = weights[known].sum()
    return _write_number(advantages[known].sum() / total) if total else 0.0


def _write_line(fields: dict[str, Any], pieces: list[str], arrays: dict[str, Any], row: int) -> str:
    """One JSON object. The lists of numbers are formatted here, since json is slower and writes 17 digits."""
    head = json.dumps(fields | {"tokens": pieces}, ensure_ascii=False, allow_nan=False)
    parts = [head.removesuffix("}")]
    for name in PER_TOKEN:
        values = None if arrays[name] is None else arrays[name][row, : len(pieces)]
        parts.append(f'"{name}":{"null" if values is None else _write_numbers(values)}')
    # UTF-8 has no lone surrogates, which decoding single tokens can leave; "?" takes their place.
    return (",".join(parts) + "}\n").encode("utf-8", "replace").decode("utf-8")


def _write_numbers(values: Any) -> str:
    if values.dtype.kind in "bui":
        return "[" + ",".join(str(int(v)) for v in values.tolist()) + "]"
    return "[" + ",".join(f"{v:.9g}" if isfinite(v) else "null" for v in values.tolist()) + "]"


def _write_number(value: Any) -> float | None:
    return float(f"{float(value):.9g}") if isfinite(value) else None
