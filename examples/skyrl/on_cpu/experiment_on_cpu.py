"""SkyRL's experiment with credit's trainer, whose sampler stands in for vLLM; Ray's workers import it."""

from typing import Any

import skyrl_gym
from sampler_on_cpu import Client
from skyrl.train.dataset import PromptDataset

from credit.adapters.skyrl.entrypoint import CreditExperiment

ENVIRONMENTS = {"exact_match": "ExactMatch", "right_characters": "RightCharacters"}


class Experiment(CreditExperiment):
    """What differs from credit's own: the sampler, the tasks, and one process to read the data."""

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        for name, kind in ENVIRONMENTS.items():
            skyrl_gym.register(id=name, entry_point=f"arithmetic_env:{kind}")

    def get_train_dataset(self) -> PromptDataset:
        cfg = self.cfg
        return PromptDataset(
            cfg.data.train_data, self.tokenizer, cfg.trainer.max_prompt_length, num_workers=1
        )

    def get_inference_client(self) -> Client:
        return Client(self.cfg.trainer.policy.model.path, self.cfg.trainer.seed)
