"""What decides the reward of a response, and which kind each of its tokens is."""

import pytest
import torch
from pivot_study import tasks
from pivot_study.policy import Cell
from pivot_study.tasks import FILLER, PIVOT, STYLE

CELLS = [Cell(task, style) for task in ("slots", "walk") for style in ("wide", "narrow")]


def demonstrate(cell, right, count=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    prompts = cell.task.draw_prompts(count, generator)
    return prompts, cell.task.demonstrate(prompts, right, cell.style, generator)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_the_pivots_alone_decide_the_reward(cell):
    prompts, ids = demonstrate(cell, right=1.0)
    kinds = cell.task.find_kinds(prompts, ids)
    assert ids.shape == (200, cell.task.response_tokens)
    assert int(ids.min()) >= 0
    assert int(ids.max()) < tasks.VOCABULARY
    assert (cell.task.reward(prompts, ids) == 1.0).all()
    letters = (ids >= tasks.LETTERS) & (ids < tasks.FILL)
    other_style = torch.where(letters, (ids - tasks.LETTERS + 1) % 36 + tasks.LETTERS, ids)
    assert (cell.task.reward(prompts, other_style) == 1.0).all()
    other_filler = torch.where((kinds == FILLER) & (ids != tasks.ASK), tasks.FILL, ids)
    assert (cell.task.reward(prompts, other_filler) == 1.0).all()
    for number in range(3):
        chosen = (kinds == PIVOT) & ((kinds == PIVOT).cumsum(1) == number + 1)
        assert (cell.task.reward(prompts, torch.where(chosen, tasks.LETTERS, ids)) == 0.0).all()


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_three_to_five_tokens_are_pivots_and_style_is_where_the_letters_are(cell):
    prompts, ids = demonstrate(cell, cell.task.right_at_first)
    kinds = cell.task.find_kinds(prompts, ids)
    pivots = (kinds == PIVOT).sum(1)
    assert int(pivots.min()) >= 3
    assert int(pivots.max()) <= 5
    letters = (ids >= tasks.LETTERS) & (ids < tasks.FILL)
    assert (kinds[letters] == STYLE).all()
    assert 0.05 < float(cell.task.reward(prompts, ids).mean()) < 0.4


def test_pivots_of_walks_are_not_marked_by_position():
    prompts, ids = demonstrate(Cell("walk", "wide"), 1.0)
    pivots = tasks.find_walk_kinds(prompts, ids) == PIVOT
    assert float(pivots.float().mean(0).max()) < 0.3


def test_a_walk_with_too_few_steps_earns_nothing_and_steps_beyond_do_not_count():
    prompts, ids = demonstrate(Cell("walk", "wide"), 1.0)
    first = (ids == tasks.ASK) & ((ids == tasks.ASK).cumsum(1) == 1)
    assert (tasks.reward_walk(prompts, torch.where(first, tasks.LETTERS, ids)) == 0.0).all()
    ids[:, -2], ids[:, -1] = tasks.ASK, tasks.LETTERS
    assert (tasks.reward_walk(prompts, ids) == 1.0).all()
    assert (tasks.find_walk_kinds(prompts, ids)[:, -1] == STYLE).all()


def test_narrow_style_is_less_uncertain_than_wide():
    generator = torch.Generator().manual_seed(0)
    wide, narrow = (tasks.draw_letters(style, 16, (500, 20), generator) for style in ("wide", "narrow"))
    assert float((wide == 0).float().mean()) == pytest.approx(1 / 16, abs=0.01)
    assert float((narrow == 0).float().mean()) == pytest.approx(0.8 + 0.2 / 16, abs=0.02)
