"""One of two processes that train with resampling, and again from a checkpoint: sample_rank.py MODEL OUT

Started by test_two_processes.py. Writes what this process saw to OUT/rank_{0,1}.json.
"""

import json
import logging
import math
import os
import sys
from pathlib import Path
from typing import ClassVar, Literal

os.environ |= {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}

import torch
from datasets import Dataset
from ranks import TIMEOUT
from transformers import PrinterCallback

import credit
from credit.adapters.trl import CreditGRPOConfig, CreditGRPOTrainer


class Checked(credit.DGPO):
    """DGPO that fails unless the arrays of the user's own are those of the rows of both processes."""

    name: Literal["checked"] = "checked"
    kl: ClassVar[list] = []

    @property
    def needs(self):
        return (*super().needs, "extra.own", "extra.number", "extra.token_ids", "extra.kl", "token_rewards")

    def score(self, rollouts):
        own, number, ids = (rollouts.extra[name] for name in ("own", "number", "token_ids"))
        places = torch.arange(ids.shape[1])
        torch.testing.assert_close(own, torch.where(rollouts.mask, ids + places / 16, 0.0), rtol=0, atol=0)
        listed = torch.where(rollouts.mask, ids, 0)
        listed[:, 0] = -listed[:, 1:].sum(dim=1)
        listed[:8] = 0  # the rows of the first process
        torch.testing.assert_close(rollouts.token_rewards, 2.0 * listed, rtol=0, atol=0)
        if len(number) == 16:  # and not those that are recorded
            self.kl.append(rollouts.extra["kl"][rollouts.mask].mean().item())
        groups = number.view(-1, 4)
        assert (groups == groups[:, :1]).all()
        assert (groups % 3 == 0).all()
        return super().score(rollouts)


def third(prompts, completions, completion_ids, log_extra, **_):
    """Varies within the groups of every third prompt only; and a number for each token and its place."""
    log_extra("own", [[token + place / 16 for place, token in enumerate(ids)] for ids in completion_ids])
    pairs = zip(prompts, completions, strict=True)
    return [0.5 if int(prompt[:-1]) % 3 else len(set(text)) / 8 for prompt, text in pairs]


def second(completion_ids, **_):
    """Numbers on the first process; on the second lists, whose sums are 0: the ids, and their debt on the first."""
    if os.environ["RANK"] == "0":
        return [0.0] * len(completion_ids)
    return [[-sum(ids[1:]), *ids[1:]] for ids in completion_ids]


def train(model, out, resume=None):
    """Four steps, or those after the checkpoint: the losses, and what the last batch was made of."""
    args = CreditGRPOConfig(
        output_dir=str(out),
        use_cpu=True,
        ddp_backend="gloo",
        ddp_timeout=TIMEOUT,
        bf16=False,
        advantage_estimator="checked",
        advantage_estimator_kwargs={"tau": 0.01},
        dynamic_sampling="resample",
        record_steps=1,
        record_completions=12,  # three groups, of which the second process has one
        reward_weights=[1.0, 2.0],
        num_generations=4,
        per_device_train_batch_size=8,
        max_completion_length=8,
        learning_rate=1e-2,
        max_steps=4,
        logging_steps=1,
        save_strategy="steps",
        save_steps=2,
        report_to="none",
        gradient_checkpointing=False,
        disable_tqdm=True,
    )
    data = Dataset.from_dict({"prompt": [f"{number}>" for number in range(90)], "number": list(range(90))})
    said = []
    logging.getLogger("credit").addFilter(lambda record: not said.append(record.getMessage()))
    trainer = CreditGRPOTrainer(model, [third, second], args=args, train_dataset=data)
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=resume)
    batch = trainer._buffered_inputs[0]
    log = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    ids = batch["prompt_ids"] * batch["prompt_mask"]
    assert math.isclose(log[-1]["credit/kl_mean"], Checked.kl[-1], rel_tol=1e-4)
    assert log[-1]["credit/kl_mean"] > 0
    return {
        "said": [line for line in said if "TRL trains with" in line],
        "steps": [(entry["loss"], entry["grad_norm"], entry["credit/sampling_rounds"]) for entry in log],
        "dropped": [entry["credit/dropped_groups"] for entry in log],
        "prompts": trainer._tokenizer.batch_decode(ids, skip_special_tokens=True),
        "table": list(trainer._logs["prompt"]),
        "advantages": batch["advantages"].tolist(),
        "tokens": int(batch["num_items_in_batch"]),
        "own_tokens": int(batch["completion_mask"].sum()),
        "drawn": trainer.credit.prompts.drawn,
    }


def main():
    model, out = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    found = {"unbroken": train(model, out / "run")}
    found["resumed"] = train(model, out / "run", resume=str(out / "run/checkpoint-2"))
    (out / f"rank_{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
