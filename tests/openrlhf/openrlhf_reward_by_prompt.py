"""A user's rewards that cannot tell responses to some prompts apart: those to a prompt of an even first digit."""

from openrlhf_reward import own_logs
from openrlhf_reward import reward_func as reward_by_response

EVEN = "02468"


def reward_func(queries, prompts, labels):
    """Equal rewards for those prompts, and those of the neighbouring file for the others."""
    if prompts[0][0] in EVEN:
        return {"rewards": 0.5, "scores": 0.5, "extra_logs": own_logs(queries[0], prompts[0], 0.5)}
    return reward_by_response(queries, prompts, labels)
