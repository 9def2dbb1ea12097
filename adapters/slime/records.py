"""Completions with the credit of their tokens, written while training for the views of credit.lens."""

from functools import cache
from pathlib import Path
from typing import Any

import credit
from credit import lens
from credit.adapters.records import select_groups
from credit.adapters.slime.rollouts import Whole
from credit.adapters.slime.settings import AdapterSettings


def write_records(
    args: Any,
    estimator: credit.Estimator,
    settings: AdapterSettings,
    whole: Whole,
    result: credit.Credit,
    step: int,
) -> None:
    """Appends the batch's first groups to the file."""
    rows, given, result = select_groups(whole.rollouts, result, settings.record_completions)
    prompts, responses = list[list[int]](), list[list[int]]()
    for row in rows.tolist():
        tokens, length = whole.tokens[row].tolist(), whole.lengths[row]
        prompts.append(tokens[: len(tokens) - length])
        responses.append(tokens[len(tokens) - length :])
    tokenizer = _load_tokenizer(args.hf_checkpoint)
    lens.record(
        settings.record_path or Path(args.save) / "credit.jsonl",
        tokens=lens.text_pieces(tokenizer, responses, prompts),
        rollouts=given,
        result=result,
        estimator=estimator,
        prompts=[tokenizer.decode(ids, skip_special_tokens=False) for ids in prompts],
        step=step,
    )


@cache
def _load_tokenizer(path: str) -> Any:
    from transformers import AutoTokenizer  # which only runs that record need

    return AutoTokenizer.from_pretrained(path, trust_remote_code=True)  # as slime loads it
