"""Verifiable tasks of any length: prompts of one width, answers as characters, and the check of an answer."""

import random
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "trl"))

import arithmetic  # noqa: E402

END = 0
CHARACTERS = "0123456789+>,()[]"
VOCABULARY = 1 + len(CHARACTERS)
PAIRS = {"(": ")", "[": "]"}

Problem = tuple[str, str]  # a prompt, and one right answer


def sorting(rng: random.Random, length: int) -> Problem:
    """Digits, and the same digits in order: `3142>`, `1234`."""
    digits = rng.choices("0123456789", k=length)
    return "".join(digits) + ">", "".join(sorted(digits))


def brackets(rng: random.Random, length: int) -> Problem:
    """The first half of a balanced word of two kinds of brackets, and a second half: `([>`, `])`."""
    word, open_ones = "", ""
    while len(word) < 2 * length:
        left = 2 * length - len(word)
        if not open_ones or (len(open_ones) < left and rng.random() < 0.5):
            open_ones += rng.choice("([")
            word += open_ones[-1]
        else:
            word += PAIRS[open_ones[-1]]
            open_ones = open_ones[:-1]
    return word[:length] + ">", word[length:]


def balanced(word: str) -> bool:
    """Whether every bracket is closed by its own kind, in order."""
    open_ones: list[str] = []
    for character in word:
        if character in PAIRS:
            open_ones.append(PAIRS[character])
        elif not open_ones or open_ones.pop() != character:
            return False
    return not open_ones


@dataclass(frozen=True)
class Task:
    """A family of problems: how and of what lengths they are made, and how long an answer may be."""

    make: Callable[[random.Random, int], Problem]
    shortest: int = 2  # of shorter ones there are too few prompts to hold several out
    longest: int | None = None
    per_length: int = 1  # characters of an answer, at the most, per unit of length
    many_answers: bool = False

    def right(self, problem: Problem, completion: str) -> bool:
        """The only right answer, or for brackets any that is as long and balances the prompt's."""
        prompt, answer = problem
        if not self.many_answers:
            return completion == answer
        return len(completion) == len(answer) and balanced(prompt.rstrip(">") + completion)


TASKS = {
    "running_sums": Task(arithmetic.running_sums),
    # Totals are below 1,000, and have a comma.
    "addition_chain": Task(arithmetic.addition_chain, shortest=1, longest=10, per_length=4),
    "sorting": Task(sorting),
    "brackets": Task(brackets, shortest=4, many_answers=True),
}


def check(task: str, length: int) -> None:
    """Refuses what cannot be made.

    Raises:
        ValueError: the task is unknown, or has no such length.
    """
    kind = TASKS.get(task)
    if kind is None or length < kind.shortest or length > (kind.longest or length):
        raise ValueError(
            f"no task {task}:{length}; known, with their lengths: {', '.join(map(_known, TASKS))}"
        )


def _known(task: str) -> str:
    kind = TASKS[task]
    return (
        f"{task}:{kind.shortest} and longer"
        if kind.longest is None
        else (f"{task}:{kind.shortest} to {kind.longest}")
    )


def answer_tokens(task: str, length: int) -> int:
    """Tokens of the longest answer, its end included."""
    return TASKS[task].per_length * length + 1


def problems(task: str, length: int, count: int, seed: str, *, held_out: bool = False) -> list[Problem]:
    """`count` problems; one prompt in eight is held out, by a checksum, and never trained on."""
    rng = random.Random(f"{task} {length} {seed}")
    make = partial(TASKS[task].make, rng, length)
    found: list[Problem] = []
    while len(found) < count:
        problem = make()
        if (zlib.crc32(problem[0].encode()) % 8 == 0) == held_out:
            found.append(problem)
    return found


def encode(texts: list[str], width: int | None = None) -> torch.Tensor:
    """Token ids [N, T] of texts; shorter ones are filled up with ends."""
    width = max(map(len, texts)) if width is None else width
    rows = [[1 + CHARACTERS.index(c) for c in text] + [END] * (width - len(text)) for text in texts]
    return torch.tensor(rows)


def decode(ids: torch.Tensor) -> list[str]:
    """The text of each row [N, T] before its end; a row that does not end keeps a mark, so it is wrong."""
    texts = []
    for row in ids.tolist():
        ended = END in row
        kept = row[: row.index(END)] if ended else row
        texts.append("".join(CHARACTERS[i - 1] for i in kept) + ("" if ended else "…"))
    return texts
