"""A user's rewards that are no 0 or 1: three times the share of low digits, in halves, less one."""


def own_logs(query, prompt, share):
    """The share, and for each token its place, and one more if it is a low digit."""
    response = query[len(prompt) :]
    tokens = [*response.removesuffix("<eos>"), *(["<eos>"] if response.endswith("<eos>") else [])]
    return {"low": share, "own": [place + (token in "01234") for place, token in enumerate(tokens)]}


def reward_func(queries, prompts, labels):
    """OpenRLHF asks for one at a time."""
    (query,), (prompt,) = queries, prompts
    response = query[len(prompt) :].removesuffix("<eos>")
    share = round(2 * sum(c in "01234" for c in response) / max(len(response), 1)) / 2
    reward = 3 * share - 1
    return {"rewards": reward, "scores": reward, "extra_logs": own_logs(query, prompt, share)}
