"""Problems, their checks and their encoding."""

import random

import pytest
from estimator_study import tasks

CASES = [("running_sums", 6), ("addition_chain", 4), ("sorting", 8), ("brackets", 10), ("brackets", 3)]


@pytest.mark.parametrize(("task", "length"), CASES)
def test_the_answer_given_is_right_and_any_other_character_is_wrong(task, length):
    kind = tasks.TASKS[task]
    for problem in tasks.problems(task, length, 50, "test"):
        prompt, answer = problem
        assert kind.right(problem, answer)
        assert len(answer) < tasks.answer_tokens(task, length)
        place = random.Random(prompt).randrange(len(answer))
        assert not kind.right(problem, answer[:place] + ">" + answer[place + 1 :])
        assert not kind.right(problem, answer[:-1])


def test_brackets_have_several_right_answers():
    problem = "([>", "])"
    right = tasks.TASKS["brackets"].right
    assert right(problem, "])")
    assert not right(problem, ")]")
    assert not right(problem, "])()")
    assert right(("([])>", "()()"), "[()]")


@pytest.mark.parametrize(("task", "length"), CASES)
def test_held_out_prompts_are_never_trained_on(task, length):
    trained = {prompt for prompt, _ in tasks.problems(task, length, 300, "step 1 0")}
    held_out = {prompt for prompt, _ in tasks.problems(task, length, 20, "held out 0", held_out=True)}
    assert len({len(prompt) for prompt in trained | held_out}) == 1
    assert not trained & held_out


def test_text_survives_encoding_and_a_row_without_end_is_wrong():
    ids = tasks.encode(["12,42", "7"], width=6)
    assert tasks.decode(ids) == ["12,42", "7"]
    assert tasks.decode(ids[:, :5]) != ["12,42", "7"]
