"""From token ids to the text that each of them adds."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from array_api_compat import is_array_api_obj

from credit.backends.arrays import to_numpy

Ids = tuple[int, ...]
LONGEST = 4  # bytes of a character in UTF-8, so that no character needs more ids
UNFINISHED = "\ufffd"


def text_pieces(
    tokenizer: Any,
    completions: Iterable[Sequence[int]],
    before: Iterable[Sequence[int]] | None = None,
) -> list[list[str]]:
    """The text that each id adds, one string an id; joined they are the completion's text.

    A character that is spread over several ids comes with the last of them, and the others add "".
    Special tokens keep their names. `before` holds the ids that a completion follows (the prompt's, or
    the last few of them); without them a tokenizer may drop the space before the first word.

    Args:
        tokenizer: any object with Hugging Face's `decode(ids, skip_special_tokens=...)`.
        completions: ids of each completion, in lists or arrays of any library.
        before: ids of each prompt; default: none.
    """

    @lru_cache(maxsize=2**18)
    def decode(ids: Ids) -> str:
        text: str = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    ids = _to_tuples(completions)
    prompts = [()] * len(ids) if before is None else _to_tuples(before)
    if len(prompts) != len(ids):
        raise ValueError(f"before has {len(prompts)} prompts for {len(ids)} completions")
    return [_split_text(decode, *pair) for pair in zip(ids, prompts, strict=True)]


def _to_tuples(rows: Any) -> list[Ids]:
    rows = to_numpy(rows) if is_array_api_obj(rows) else rows
    return [tuple(int(i) for i in to_numpy(row)) for row in rows]


def _split_text(decode: Callable[[Ids], str], ids: Ids, before: Ids) -> list[str]:
    """One completion's; an id is decoded together with those before it that decoding may depend on."""
    context, result = before[-LONGEST:], list[str]()
    pending: Ids = ()
    for place, token in enumerate(ids):
        pending = (*pending, token)
        text = decode((*context, *pending))[len(decode(context)) :] if context else decode(pending)
        last = place == len(ids) - 1 or len(pending) == LONGEST
        if text.endswith(UNFINISHED) and not last:
            result.append("")
            continue
        result.append(text)
        context, pending = pending, ()
    return result
