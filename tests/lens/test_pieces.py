"""The pieces of a completion are what each id adds, with the tokenizers that models have."""

import pytest

from credit import lens


class Bytes:
    """A tokenizer of single bytes, where 256 is <eos>: every character beyond ASCII is spread out."""

    def decode(self, ids, *, skip_special_tokens, clean_up_tokenization_spaces):
        assert not skip_special_tokens
        assert not clean_up_tokenization_spaces
        parts = "".join("<eos>" if i == 256 else chr(0xDC00 + i) if i > 127 else chr(i) for i in ids)
        return parts.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class Words:
    """A tokenizer that, like SentencePiece, drops the space before the first word."""

    words = (" a", " b", "c")

    def decode(self, ids, **_):
        return "".join(self.words[i] for i in ids).removeprefix(" ")


def test_a_character_comes_with_its_last_byte():
    text = "aé世🙂!"
    (pieces,) = lens.text_pieces(Bytes(), [[*text.encode(), 256]])
    assert pieces == ["a", "", "é", "", "", "世", "", "", "", "🙂", "!", "<eos>"]


def test_bytes_that_make_no_character_do_not_swallow_the_rest():
    (pieces,) = lens.text_pieces(Bytes(), [[0x80, *b"ab", 0xE4]])
    assert "".join(pieces) == "\ufffdab\ufffd"
    assert len(pieces) == 4


def test_the_space_before_the_first_word_needs_the_prompt():
    assert lens.text_pieces(Words(), [[0, 1, 2, 0]]) == [["a", " b", "c", " a"]]
    assert lens.text_pieces(Words(), [[0, 1, 2, 0]], [[1]]) == [[" a", " b", "c", " a"]]
    with pytest.raises(ValueError, match="before has 2 prompts for 1 completions"):
        lens.text_pieces(Words(), [[0]], [[1], [1]])


def test_arrays_of_ids(library):
    import numpy as np

    ids = library.asarray(np.array([[104, 105], [256, 33]]))
    assert lens.text_pieces(Bytes(), ids) == [["h", "i"], ["<eos>", "!"]]
