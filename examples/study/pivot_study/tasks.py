"""Two tasks whose responses hold three known kinds of tokens: filler, style, and the pivots that decide.

Filler is deterministic after the warm-up, style is uncertain and without influence on the reward, and the
reward is 1 where all pivots of a response are right. All are written in one vocabulary of 57 ids.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

FILLER, STYLE, PIVOT = 0, 1, 2
KINDS = ("filler", "style", "pivot")

MOVES = 10  # ids of the steps right, left, up, down; a digit is its own id
LETTERS = MOVES + 4
NARROW_USUAL = 0.8  # the share of letters that are the first of their alphabet on purpose
FILL = LETTERS + 36
ASK = FILL + 6
VOCABULARY = ASK + 1


@dataclass(frozen=True)
class Task:
    """A family of prompts [B, P] with responses [B, T]."""

    prompt_tokens: int
    response_tokens: int
    right_at_first: float  # how often a pivot of a demonstration is right on purpose
    warm_up_rate: float
    warm_up_steps: int
    draw_prompts: Callable[[int, torch.Generator], Tensor]
    demonstrate: Callable[
        [Tensor, float, str, torch.Generator], Tensor
    ]  # of prompts, `right_at_first`, style
    find_kinds: Callable[[Tensor, Tensor], Tensor]  # of prompts and responses [B, T]
    reward: Callable[[Tensor, Tensor], Tensor]  # of prompts and responses [B]


SLOTS = 64
SLOT_ALPHABET = 16
SLOT_PIVOTS = torch.tensor([12, 27, 45, 60])


def draw_letters(style: str, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Numbers of letters: of `count` all alike in wide style, mostly the first in narrow style."""
    drawn = torch.randint(count, size, generator=generator)
    if style == "narrow":
        usual = torch.rand(size, generator=generator) < NARROW_USUAL
        drawn = torch.where(usual, 0, drawn)
    return drawn


def _slot_kinds() -> Tensor:
    """Half of the other positions are style, chosen once for all seeds."""
    kinds = torch.full((SLOTS,), FILLER)
    kinds[SLOT_PIVOTS] = PIVOT
    taken = torch.zeros(SLOTS, dtype=torch.bool)
    taken[SLOT_PIVOTS] = taken[SLOT_PIVOTS - 1] = True
    free = (~taken).nonzero().flatten()
    order = torch.randperm(len(free), generator=torch.Generator().manual_seed(0))
    kinds[free[order[:30]]] = STYLE
    return kinds


SLOT_KINDS = _slot_kinds()
SLOT_FILLER = torch.arange(SLOTS) % 5 + FILL
SLOT_FILLER[SLOT_PIVOTS - 1] = ASK


def draw_slot_prompts(count: int, generator: torch.Generator) -> Tensor:
    """Four digits, the answers to the four questions of the response."""
    return torch.randint(10, (count, 4), generator=generator)


def demonstrate_slots(prompts: Tensor, right: float, style: str, generator: torch.Generator) -> Tensor:
    """Style letters are uniform; a pivot is the prompt's digit with the given probability, or any digit."""
    rows = len(prompts)
    ids = SLOT_FILLER.repeat(rows, 1)
    letters = LETTERS + draw_letters(style, SLOT_ALPHABET, (rows, SLOTS), generator)
    ids = torch.where(SLOT_KINDS == STYLE, letters, ids)
    wrong = torch.randint(10, prompts.shape, generator=generator)
    hit = torch.rand(prompts.shape, generator=generator) < right
    ids[:, SLOT_PIVOTS] = torch.where(hit, prompts, wrong)
    return ids


def find_slot_kinds(prompts: Tensor, responses: Tensor) -> Tensor:
    return SLOT_KINDS.expand_as(responses)


def reward_slots(prompts: Tensor, responses: Tensor) -> Tensor:
    return (responses[:, SLOT_PIVOTS] == prompts).all(1).float()


WALK = 96
CHATTER = (6, 14)  # letters before a step, at least and at most
MOST_STEPS = 5
WALK_ALPHABET = 6  # letters of a stage; stages count the steps that are left
QUADRANTS = torch.tensor([[0, 2], [0, 3], [1, 2], [1, 3]])  # the two steps that lead into each


def draw_walk_prompts(count: int, generator: torch.Generator) -> Tensor:
    """A quadrant, and a number of steps from three to five."""
    quadrants = torch.randint(4, (count,), generator=generator)
    steps = torch.randint(3, MOST_STEPS + 1, (count,), generator=generator)
    return torch.stack([quadrants, steps], 1)


def demonstrate_walk(prompts: Tensor, right: float, style: str, generator: torch.Generator) -> Tensor:
    """For each step 6 to 14 letters, `ASK`, the step, how many are left, and a mark of that.

    A step is one of the quadrant's two with the given probability, or any of the four. Letters fill the
    rest. Each stage has letters of its own, so that where a response stands can be read from its last token.
    """
    rows = len(prompts)
    letters = LETTERS + draw_letters(style, WALK_ALPHABET, (rows, WALK), generator)
    towards = QUADRANTS[prompts[:, 0]]
    ids = letters + WALK_ALPHABET * prompts[:, 1:]
    place = torch.zeros(rows, 1, dtype=torch.long)
    for taken in range(MOST_STEPS):
        left = prompts[:, 1:] - taken - 1
        place = place + torch.randint(CHATTER[0], CHATTER[1] + 1, (rows, 1), generator=generator)
        choice = towards.gather(1, torch.randint(2, (rows, 1), generator=generator))
        anywhere = torch.randint(4, (rows, 1), generator=generator)
        hit = torch.rand((rows, 1), generator=generator) < right
        step = torch.where(hit, choice, anywhere) + MOVES
        written = (torch.full_like(step, ASK), step, left, FILL + left)
        positions = torch.arange(WALK) - place
        for offset, token in enumerate(written):
            ids = torch.where((positions == offset) & (left >= 0), token, ids)
        place = place + len(written)
        ids = torch.where((positions >= len(written)) & (left >= 0), letters + WALK_ALPHABET * left, ids)
    return ids


def find_walk_kinds(prompts: Tensor, responses: Tensor) -> Tensor:
    """What follows an `ASK` is a pivot, as often as the prompt says, the two tokens after it are filler."""
    pivot = torch.zeros_like(responses, dtype=torch.bool)
    pivot[:, 1:] = responses[:, :-1] == ASK
    pivot &= pivot.cumsum(1) <= prompts[:, 1:]
    filler = torch.zeros_like(pivot)
    for offset in (1, 2):
        filler[:, offset:] |= pivot[:, :-offset]
    kinds = torch.where(filler, FILLER, STYLE)
    return torch.where(pivot, PIVOT, kinds)


def reward_walk(prompts: Tensor, responses: Tensor) -> Tensor:
    """Whether the first steps, as many as the prompt says, all lead into its quadrant."""
    pivot = find_walk_kinds(prompts, responses) == PIVOT
    towards = (responses[:, :, None] - MOVES == QUADRANTS[prompts[:, 0]][:, None]).any(2)
    return ((pivot & towards).sum(1) == prompts[:, 1]).float()


TASKS = {
    "slots": Task(
        4, SLOTS, 0.6, 3e-3, 1000, draw_slot_prompts, demonstrate_slots, find_slot_kinds, reward_slots
    ),
    "walk": Task(2, WALK, 0.3, 1e-2, 600, draw_walk_prompts, demonstrate_walk, find_walk_kinds, reward_walk),
}
