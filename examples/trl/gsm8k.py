"""Trains your model on GSM8K with DGPO; with one GPU, or with eight and ddp, zero3 or fsdp2 for one_gpu:

    cd examples/trl
    accelerate launch --config_file accelerate/one_gpu.yaml gsm8k.py --config gsm8k.yaml --max_steps 100

gsm8k.yaml holds the settings, any of TRL's GRPOConfig among them; flags override it.
"""

from dataclasses import dataclass

from arithmetic import last_number_match
from datasets import load_dataset
from trl import TrlParser

from credit.adapters.trl import CreditGRPOConfig, CreditGRPOTrainer

QUESTION = "{}\nThink step by step, and end with the answer as a number."


@dataclass
class Model:
    """The one setting beside the trainer's; all else about the model goes to model_init_kwargs."""

    model_name_or_path: str


def main() -> None:
    """What any GRPO script of TRL does, with another config and trainer class."""
    config, model = TrlParser((CreditGRPOConfig, Model)).parse_args_and_config()
    data = load_dataset("openai/gsm8k", "main", split="train")
    trainer = CreditGRPOTrainer(
        model.model_name_or_path,
        last_number_match,
        args=config,
        train_dataset=data.map(
            lambda row: {"prompt": [{"role": "user", "content": QUESTION.format(row["question"])}]}
        ),
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
