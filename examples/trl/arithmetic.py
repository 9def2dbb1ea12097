"""Verifiable arithmetic whose answers are chains: every token depends on those before it."""

import random
import re
from collections.abc import Callable

CHARACTERS = "0123456789+>,"


def running_sums(rng: random.Random, length: int = 10) -> tuple[str, str]:
    """Digits, and the sums of the first 1, 2, ... of them modulo 10: `314>`, `348`."""
    digits = [rng.randrange(10) for _ in range(length)]
    sums = [str(sum(digits[: i + 1]) % 10) for i in range(length)]
    return "".join(map(str, digits)) + ">", "".join(sums)


def addition_chain(rng: random.Random, length: int = 4) -> tuple[str, str]:
    """Two-digit numbers, and their running totals: `12+30+25>`, `12,42,67`."""
    numbers = [rng.randrange(10, 100) for _ in range(length)]
    totals = [str(sum(numbers[: i + 1])) for i in range(length)]
    return "+".join(map(str, numbers)) + ">", ",".join(totals)


TASKS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "running_sums": running_sums,
    "addition_chain": addition_chain,
}


def problems(task: str, count: int, seed: int) -> list[tuple[str, str]]:
    """`count` pairs of prompt and answer."""
    rng = random.Random(seed)
    return [TASKS[task](rng) for _ in range(count)]


def exact_match(completions: list[str], answer: list[str], **_: object) -> list[float]:
    """1 for a completion that is the answer, else 0."""
    return [float(text == expected) for text, expected in zip(completions, answer, strict=True)]


def last_number_match(completions: list, answer: list[str], **_: object) -> list[float]:
    """1 for a completion whose last number is the answer's last number, else 0 (word problems)."""
    texts = [text if isinstance(text, str) else text[-1]["content"] for text in completions]
    return [float(_last_number(t) == _last_number(a) is not None) for t, a in zip(texts, answer, strict=True)]


def _last_number(text: str) -> float | None:
    found = re.findall(r"-?\d[\d,]*\.?\d*", text)
    return float(found[-1].replace(",", "")) if found else None
