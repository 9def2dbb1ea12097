"""A user's rewards that are no 0 or 1: three times the share of low digits, in halves, less one."""


def reward_func(queries, prompts, labels):
    """OpenRLHF asks for one at a time."""
    (query,), (prompt,) = queries, prompts
    response = query[len(prompt) :].removesuffix("<eos>")
    share = round(2 * sum(c in "01234" for c in response) / max(len(response), 1)) / 2
    reward = 3 * share - 1
    return {"rewards": reward, "scores": reward, "extra_logs": {"low": share}}
