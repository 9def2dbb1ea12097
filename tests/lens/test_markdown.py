"""Completions as Markdown, rendered by another library and read as text again."""

import pytest
from made_completions import HOSTILE, make_completion
from rendered import TAGS, Rendered

from credit import lens
from credit.lens.headings import escape_token


def render(*completions):
    html = pytest.importorskip("markdown_it").MarkdownIt("gfm-like", {"linkify": False})
    return Rendered(html.render(lens.format_markdown(completions)))


def test_hostile_text_stays_text():
    text = "".join(HOSTILE)
    shown = render(make_completion(HOSTILE, [2.0, 0.5] * 9, prompt=text[:300]))
    assert shown.tags == TAGS
    assert shown.attributes == []
    assert shown.paragraphs[2:] == [f"Prompt: {escape_token(text[:300])}", escape_token(text)]
    assert shown.cells[1::5] == [
        escape_token(token).replace("\n", "").replace(" ", "␣") for token in HOSTILE[::2]
    ]


def test_the_heaviest_ten_tokens_are_listed_with_their_numbers():
    weights = [1 + place / 100 for place in range(12)]
    cells = render(make_completion(list("abcdefghijkl"), weights)).cells
    assert cells[:10] == ["11", "l", "1.11", "1", "1", "10", "k", "1.1", "1", "1"]
    assert len(cells) == 10 * 5


def test_tokens_of_equal_weight_neither_stand_out_nor_are_listed():
    text = lens.format_markdown([make_completion(["a", "b"], [1.0000001, 0.9999999])])
    assert "<strong>a" not in text
    assert "| t |" not in text


def test_what_is_missing_or_took_no_part_is_said():
    tokens, numbers = ["lost", "tool", "rest"], {"mask": [1, 0, 1], "advantages": [None, 0.0, 0.5]}
    text = lens.format_markdown([make_completion(tokens, [None, 0.0, 0.5], **numbers)])
    assert "std w &#63;   <strong>1 of 2 weights missing</strong>" in text
    assert "<p><code>lost</code><em>tool</em>rest</p>" in text
    assert "| 0 | lost | ? | 1 | ? |" in text
    text = lens.format_markdown([make_completion(tokens, [0.0] * 3, valid=False, reward=None)])
    assert "r &#63;   A &#63;   std w &#63;   <strong>invalid&#58; took no part</strong>" in text


def test_a_long_prompt_keeps_its_ends():
    (prompt,) = (
        p for p in render(make_completion(["a"], prompt="s" * 500 + "e" * 500)).paragraphs if "Prompt" in p
    )
    assert prompt == f"Prompt: {'s' * 100} … {'e' * 300}"


def test_there_has_to_be_a_completion():
    with pytest.raises(ValueError, match="completions is empty; expected at least one"):
        lens.format_markdown([])
