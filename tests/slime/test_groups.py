"""Which samples belong to a prompt, which slime does not send."""

import pytest

from credit.adapters.slime.groups import find_groups

PROMPTS = list("aaaabbbbcccc")


def find(indices, prompts=PROMPTS, size=4, sessions=None):
    count = len(indices)
    return find_groups(indices, range(count) if sessions is None else sessions, prompts[:count], size)


def same(groups, expected):
    """Whether they are the same but for their names."""
    return len(set(zip(groups, expected, strict=True))) == len(set(groups)) == len(set(expected))


@pytest.mark.parametrize("first", [0, 40])
def test_the_index_counts_on_within_prompts(first):
    assert same(find(range(first, first + 12)), PROMPTS)
    mixed = [first + index for index in (4, 1, 5, 0, 2, 3, 6, 7)]
    assert same(find(mixed), list("babaaabb"))


def test_prompts_may_differ_within_a_group_that_is_whole():
    """As where an environment writes something else for each rollout."""
    assert same(find(range(12), [str(row) for row in range(12)]), PROMPTS)


@pytest.mark.parametrize("first", [1, 6, 43])
def test_a_run_that_was_resumed_with_another_size_counts_from_any_number(first):
    assert same(find(range(first, first + 12)), PROMPTS)


def test_an_index_for_each_prompt():
    """As slime's example for tau-bench has it."""
    assert same(find([7, 7, 7, 7, 8, 8, 8, 8, 9, 9, 9, 9]), PROMPTS)


def test_a_prompt_that_lacks_a_rollout():
    assert same(find([0, 1, 3, 4, 5, 6, 7], list("aaabbbb")), list("aaabbbb"))
    assert same(find([1, 2, 3, 4, 5, 6], list("aaabbb")), list("aaabbb"))


def test_prompts_that_lack_rollouts_are_not_taken_for_others():
    """Of two groups of two, one rollout each is missing, and what is left would be a group."""
    assert same(find([1, 2], list("ab"), size=2), list("ab"))


def test_single_rollouts():
    assert same(find(range(5), list("aabcd"), size=1), range(5))


def test_several_samples_of_a_rollout_share_an_index():
    assert same(find([0, 0, 1, 2, 3], list("axaaa"), sessions=[0, 0, 1, 2, 3]), list("aaaaa"))


@pytest.mark.parametrize(
    ("indices", "prompts", "sessions", "message"),
    [
        ([0, None], "aa", None, "some samples have no index"),
        ([5, 5, 5, 5, 5], "aaaaa", None, "5 rollouts have the index 5"),
        ([5, 5, 6, 7], "aaaa", None, "2 rollouts have the index 5"),
        ([0, 1, 2, 3], "aaaa", [0, 0, 1, 2], "the samples of a rollout_id have several"),
        ([0, 1, 3, 4, 5], "abcde", None, "4 that follow each other have different prompts"),
    ],
)
def test_indices_that_do_not_tell(indices, prompts, sessions, message):
    expected = f"{message}; let each Sample keep the index that the data source gave it"
    with pytest.raises(ValueError, match=expected):
        find(indices, list(prompts), sessions=sessions)
