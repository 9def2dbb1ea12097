"""A user's rewards that are no 0 or 1: three times the share of low digits, in halves, less one."""

import re

import given_rows


def own_logs(query, prompt, share):
    """The share, and for each token its place, and one more if it is a low digit."""
    tokens = re.findall(r"<\w+>|.", query[len(prompt) :])  # a special token is one
    rows = given_rows.make_rows([[len(token) * ord(token[0]) % 16 for token in tokens]])
    given = {name: rows[name][0] for name in ("teacher_log_probs", "states", "token_rewards", "planning")}
    own = [place + (token in "01234") for place, token in enumerate(tokens)]
    return {"low": share, "own": own, **given}


def reward_func(queries, prompts, labels):
    """OpenRLHF asks for one at a time."""
    (query,), (prompt,) = queries, prompts
    response = query[len(prompt) :].removesuffix("<eos>")
    share = round(2 * sum(c in "01234" for c in response) / max(len(response), 1)) / 2
    reward = 3 * share - 1
    return {"rewards": reward, "scores": reward, "extra_logs": own_logs(query, prompt, share)}
