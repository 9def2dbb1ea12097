"""The text that each token id adds to a completion."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from array_api_compat import is_array_api_obj

from credit.backends.arrays import to_numpy

Ids = tuple[int, ...]
LONGEST = 4  # A character has at most 4 bytes in UTF-8, so no character is spread over more ids.
UNFINISHED = "\ufffd"  # which tokenizers decode the first bytes of a character to


def text_pieces(
    tokenizer: Any,
    completions: Iterable[Sequence[int]],
    before: Iterable[Sequence[int]] | None = None,
) -> list[list[str]]:
    """The text that each id adds: one string per id, which joined are the completion's text.

    A character that is spread over several ids comes with the last of them, and the others add "".
    Special tokens are written by their names.

    Args:
        tokenizer: any object with Hugging Face's `decode(ids, skip_special_tokens=...)`.
        completions: ids of each completion, as lists, or as arrays of any library.
        before: ids of each prompt, or the last few of them. Without them a tokenizer may drop the space
            before the first word. Default: none.

    Returns:
        A list of strings for each completion.

    Raises:
        ValueError: `before` does not have one prompt per completion.

    Example:
        >>> from credit import lens
        >>> class Letters:
        ...     def decode(self, ids, **options):
        ...         return "".join(chr(i) for i in ids)
        >>> lens.text_pieces(Letters(), [[72, 105], [33]])
        [['H', 'i'], ['!']]
    """

    @lru_cache(maxsize=2**18)
    def decode(ids: Ids) -> str:
        text: str = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    ids = _to_tuples(completions)
    prompts = [()] * len(ids) if before is None else _to_tuples(before)
    if len(prompts) != len(ids):
        raise ValueError(
            f"before has {len(prompts)} prompts for {len(ids)} completions; expected one for each"
        )
    return [_split_text(decode, *pair) for pair in zip(ids, prompts, strict=True)]


def _to_tuples(rows: Any) -> list[Ids]:
    rows = to_numpy(rows) if is_array_api_obj(rows) else rows
    return [tuple(int(i) for i in to_numpy(row)) for row in rows]


def _split_text(decode: Callable[[Ids], str], ids: Ids, before: Ids) -> list[str]:
    """The pieces of one completion. Decoding an id can depend on the ids before it, so they come along."""
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
