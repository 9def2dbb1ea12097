"""TRL's own tests, kept in small, that our trainer failed where TRL's passes."""

from collections import defaultdict
from types import SimpleNamespace

import torch

from credit.adapters.trl import CreditGRPOTrainer


def test_a_trainer_without_init_generates_as_trls_does():
    trainer = object.__new__(CreditGRPOTrainer)
    trainer.accelerator = SimpleNamespace(
        device=torch.device("cpu"), is_main_process=True, gather=lambda t: t
    )
    trainer.args = SimpleNamespace(report_to=[])
    trainer.model = SimpleNamespace(training=True)
    trainer.state = SimpleNamespace(global_step=2, num_input_tokens_seen=0)
    trainer.processing_class = SimpleNamespace(batch_decode=lambda *_, **__: ["decoded"])
    trainer._tokenizer = SimpleNamespace(eos_token_id=2, pad_token_id=0)
    trainer.use_vllm, trainer.tools, trainer.eos_token_ids = False, None, [2]
    trainer._metrics = {"train": defaultdict(list)}
    trainer.rollout_func = lambda *_: {
        "prompt_ids": [[1]],
        "completion_ids": [[2]],
        "logprobs": [[-0.1]],
        "env_mask": [[1]],
    }
    assert trainer.credit_estimator is None
    assert trainer._generate(["prompt"])[:3] == ([[1]], [[2]], [[1]])
