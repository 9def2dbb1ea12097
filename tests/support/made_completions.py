"""Completions made for views, some with text that would be markup if it were not escaped."""

from credit import lens

HOSTILE = [
    *("# head\n", "* item\n\n", "**bold** _em_ `code`", "<script>alert(1)</script>", "</p></strong>"),
    *("<img src=x onerror=alert(1)>", "![i](http://a.b/c.png)", "[l](javascript:alert(1))", "|a|\n|-|\n"),
    *("&lt;b&gt; &#35;", "\n\n    four", "```\ncode\n```\n", "~~s~~ http://a.b a@b.c", "\\*", "\r\x00\u202e"),
    *("1. one\n- two\n> three\n---\n", "  two  spaces ", "é🙂"),
]


def make_completion(tokens, weights=None, **fields):
    ones = [1.0] * len(tokens)
    common = {
        **dict.fromkeys(("prompt", "progress", "log_probs", "reference_log_probs", "turns", "scores")),
        **{"format": 1, "step": 3, "row": 0, "group": 0, "reward": 1.0, "valid": True, "advantage": 2.0},
        **{"estimator": {"name": "dgpo"}, "tokens": tokens, "mask": [1] * len(tokens)},
        **{"deviation": ones, "normalized_entropy": None},
        **{"weights": weights or ones, "advantages": ones},
    }
    return lens.Completion(**(common | fields))
