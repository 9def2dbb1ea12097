"""The reward of the small model's tasks, as an environment of skyrl-gym."""

from typing import Any

import arithmetic
from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput


class ExactMatch(BaseTextEnv):
    """One turn: 1 for a response that is the answer, else 0. The data's `extras` have the answer."""

    def __init__(self, env_config: Any = None, extras: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.answer = (extras or {})["answer"]

    def score(self, action: str) -> float:
        return arithmetic.exact_match([action], [self.answer])[0]

    def step(self, action: str) -> BaseTextEnvStepOutput:
        return BaseTextEnvStepOutput(observations=[], reward=self.score(action), done=True, metadata={})


class RightCharacters(ExactMatch):
    """The share of the answer's characters that stand at their place; a model without warm-up earns some."""

    def score(self, action: str) -> float:
        return sum(a == b for a, b in zip(action, self.answer, strict=False)) / len(self.answer)
