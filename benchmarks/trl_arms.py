"""What the step of TRL's trainer is timed with: sizes, the arms that are compared, and their trainers."""

from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from transformers import PrinterCallback, ProgressCallback
from trl import GRPOConfig, GRPOTrainer

from credit.adapters.trl import CreditGRPOConfig, CreditGRPOTrainer


class Size(NamedTuple):
    """A model and its batch."""

    vocabulary: int
    hidden: int
    inner: int
    layers: int
    prompt: int
    completion: int
    rows: int
    micro_batch: int
    steps: int
    curve_steps: int
    curve_completion: int


SIZES = {
    "tiny": Size(64, 64, 64, 1, 4, 8, 8, 4, 2, 1, 4),  # to rehearse
    "cpu": Size(4096, 128, 512, 3, 16, 112, 8, 4, 4, 0, 0),
    "cpu_8m": Size(16_384, 256, 1024, 4, 32, 128, 8, 4, 4, 0, 0),
    "cuda": Size(151_936, 1024, 4864, 24, 128, 1920, 16, 4, 6, 12, 96),
}
TWICE = {"num_iterations": 2}  # TRL then runs the policy once more, for log-probs of the policy that sampled
DGPO = {"advantage_estimator": "dgpo", "advantage_estimator_kwargs": {"effective_fraction": 0.5}}
ARMS = {
    "GRPO": (GRPOTrainer, GRPOConfig, {}),
    "GRPO with KL": (GRPOTrainer, GRPOConfig, {"beta": 0.04}),
    "DGPO": (CreditGRPOTrainer, CreditGRPOConfig, DGPO),
    "GRPO with KL, two iterations": (GRPOTrainer, GRPOConfig, {"beta": 0.04, **TWICE}),
    "DGPO, two iterations": (CreditGRPOTrainer, CreditGRPOConfig, DGPO | TWICE),
}
WITH_KL = dict.fromkeys(("GRPO", "GRPO with KL", "DGPO"), "GRPO with KL")
WITH_KL |= dict.fromkeys(
    ("GRPO with KL, two iterations", "DGPO, two iterations"), "GRPO with KL, two iterations"
)


def given_completions(size: Size) -> Any:
    """A rollout_func of random completions, the same for every arm, of an eighth of the length or more."""

    def rollouts(prompts: list[str], trainer: Any) -> dict[str, Any]:
        rng = np.random.default_rng(trainer.state.global_step)
        lengths = rng.integers(size.completion // 8, size.completion + 1, len(prompts))
        ids = [[*rng.integers(2, size.vocabulary, n - 1).tolist(), 1] for n in lengths]
        return {
            "prompt_ids": trainer.processing_class(prompts)["input_ids"],
            "completion_ids": ids,
            "logprobs": None,
        }

    return rollouts


def first_half(size: Size) -> Any:
    """The share of tokens from the first half of the vocabulary."""

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [float(np.mean(np.asarray(ids) < size.vocabulary // 2)) for ids in completion_ids]

    return reward


def trainer_of(arm: str, size: Size, device: str, path: str, **settings: Any) -> Any:
    """One arm's trainer."""
    kind, config, own = ARMS[arm]
    rollout_func = settings.pop("rollout_func", None)
    rng = np.random.default_rng(0)
    words = rng.integers(2, size.vocabulary, (512, size.prompt))
    settings.setdefault("model_init_kwargs", {"dtype": "float32" if device == "cpu" else "bfloat16"})
    args = config(
        output_dir=f"{path}/out",
        use_cpu=device == "cpu",
        bf16=device != "cpu",
        gradient_checkpointing=device != "cpu",
        per_device_train_batch_size=size.micro_batch,
        gradient_accumulation_steps=size.rows // size.micro_batch,
        num_generations=8,
        loss_type="grpo",
        lr_scheduler_type="constant",
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        **(own | settings),
    )
    trainer = kind(
        path,
        first_half(size),
        args=args,
        train_dataset=Dataset.from_dict({"prompt": [" ".join(map(str, row)) for row in words]}),
        rollout_func=rollout_func,
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer
