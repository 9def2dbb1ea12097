"""One rank that trains and scores the same data in several layouts: python sharded_rank.py OUT CASES

Started by test_sharded.py with RANK and WORLD_SIZE set; CASES is a JSON list of keywords of `train`.
"""

import json
import os
import random
import sys
from collections import Counter
from types import SimpleNamespace

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

import peft
import small_models
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from datasets import Dataset
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import PrinterCallback, ProgressCallback
from transformers.integrations import unset_hf_deepspeed_config

import credit
from credit.adapters.trl import CreditGRPOConfig, CreditGRPOTrainer, forward, kept_forwards, statistics
from credit.adapters.trl.processes import gather_rows

WIDTH = 12
ROWS = 16  # of all ranks together
SETTINGS = {
    "use_cpu": True,
    "bf16": False,
    "max_steps": 4,
    "num_iterations": 2,  # the second step over a batch has a ratio other than 1, and so a loss to compare
    "num_generations": 4,
    "num_generations_eval": 4,
    "max_completion_length": WIDTH,
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "report_to": "none",
    "save_strategy": "no",
    "gradient_checkpointing": False,
    "seed": 1,
    "disable_tqdm": True,
    "loss_type": "dapo",
    "advantage_estimator": "dgpo",
    "advantage_estimator_kwargs": {"tau": 0.001},
    "statistics_memory_mb": 0.2,  # a few rows at a time
}
SEEN = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages")
LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


class Witness(CreditGRPOTrainer):
    """Keeps every generated batch as the ranks have it together, before TRL shuffles the rows."""

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        self.seen = {name: gather_rows(self.accelerator, output[name]) for name in SEEN}
        return output


def completions(prompts, trainer):
    """Completions that depend on the prompt, on its place in the group and on the step alone."""
    tokenizer, repeats, ids = trainer.processing_class, Counter(), []
    for prompt in prompts:
        rng = random.Random(f"{prompt} {repeats[prompt]} {trainer.state.global_step}")
        repeats[prompt] += 1
        length = rng.randrange(3, WIDTH)
        ids.append([rng.randrange(3, len(tokenizer)) for _ in range(length)] + [tokenizer.eos_token_id])
    return {"prompt_ids": tokenizer(prompts)["input_ids"], "completion_ids": ids, "logprobs": None}


def low_digits(completions, **_):
    return [sum(c in "01234" for c in text) / max(len(text), 1) for text in completions]


def deepspeed(stage, bf16):
    """A DeepSpeed config that shards every parameter, however small."""
    automatic = ("train_micro_batch_size_per_gpu", "train_batch_size", "gradient_accumulation_steps")
    return {
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
        "zero_force_ds_cpu_optimizer": False,
        "communication_data_type": "fp32",
        "bf16": {"enabled": bf16},
        **dict.fromkeys(automatic, "auto"),
    }


def trainer_of(model, out, *, stage=None, settings=None, lora=False):
    """A trainer over completions that are the same in every layout."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    unset_hf_deepspeed_config()
    given = SETTINGS | (settings or {})
    own_rows = ROWS // int(os.environ.get("WORLD_SIZE", "1"))
    given |= {"per_device_train_batch_size": own_rows, "per_device_eval_batch_size": own_rows}
    given["deepspeed"] = stage and deepspeed(stage, given["bf16"])
    torch.manual_seed(0)  # LoRA draws its weights
    trainer = Witness(
        model,
        low_digits,
        args=CreditGRPOConfig(output_dir=out, **given),
        train_dataset=Dataset.from_dict({"prompt": [f"{a}{b}>" for a in range(10) for b in range(10)]}),
        eval_dataset=Dataset.from_dict({"prompt": ["1>", "2>", "3>", "4>"]}),
        rollout_func=completions,
        peft_config=peft.LoraConfig(**LORA) if lora else None,
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer


def train(model, out, **case):
    """Trains one case: the log of each step, an evaluation, the last batch and the layout it really ran in."""
    trainer = trainer_of(model, out, **case)
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    seen = trainer.seen
    head = trainer.accelerator.unwrap_model(trainer.model).get_output_embeddings().weight
    return {
        "log": log,
        "seen": seen,
        "eval": trainer.evaluate(),
        "layout": (trainer.accelerator.distributed_type.value, trainer.accelerator.num_processes),
        "own": head.numel(),
        "whole": getattr(head, "ds_numel", head.numel()),
    }


def trainer_over(policy, reference):
    """What the scoring pass reads of a trainer."""
    args = {"gradient_checkpointing_kwargs": None, "statistics_memory_mb": 0.1, "cast_lm_head_to_fp32": False}
    args |= {"neftune_noise_alpha": None}
    return SimpleNamespace(
        model=policy,
        ref_model=reference,
        accelerator=Accelerator(cpu=True),
        temperature=0.7,
        args=SimpleNamespace(**args),
        credit_estimator=credit.DGPO(),
        credit=SimpleNamespace(estimator=credit.DGPO(), kept=None),
    )


def scored(policy, reference, keeps=False):
    """The adapter's statistics of a fixed batch; of a forward of the policy that was made before, if it `keeps`."""
    trainer = trainer_over(policy, reference)
    ids = torch.randint(3, 40, (6, 15), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(9) < torch.tensor([[9], [3], [5], [1], [7], [2]])).long()
    output = {"prompt_ids": ids[:, :6], "prompt_mask": torch.ones_like(ids[:, :6])}
    output |= {"completion_ids": ids[:, 6:], "completion_mask": mask}
    if keeps:
        trainer.credit.kept = kept_forwards.KeptForwards(memory_mb=1e-3)
        inputs = {"input_ids": ids, "attention_mask": torch.cat([output["prompt_mask"], mask], dim=1)}
        with torch.no_grad(), kept_forwards.keep_hidden(trainer, policy, mask.shape[1]):
            forward.compute_hidden_states(trainer, policy, inputs)
        assert len(trainer.credit.kept.policy) == 1
    return statistics.compute_statistics(trainer, output, mask)


def fully_sharded(make, lora=False):
    """The statistics of a policy and reference whole, and again once FSDP 2 has sharded them."""
    policy, reference = make(0), make(1)
    trainer = trainer_over(policy, reference)
    for model in (policy, reference):
        forward.prepare_head(trainer, model)
    if lora:
        policy, reference = (
            peft.get_peft_model(policy, peft.LoraConfig(**LORA, init_lora_weights=False)),
            None,
        )
    whole = scored(policy, reference)
    for model in filter(None, (policy, reference)):
        for layer in (model.get_base_model() if lora else model).model.layers:
            fully_shard(layer)
        fully_shard(model)
        assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    return {
        "whole": whole,
        "sharded": scored(policy, reference),
        "kept": scored(policy, reference, keeps=True),
    }


def gather_on_gloo():
    """Starts DeepSpeed on gloo, where it waits for the last only of parameters that it gathers together.

    On a GPU their order on its stream suffices; here models would be loaded and run with half of their weights.
    """
    import deepspeed
    from deepspeed.runtime.zero.partition_parameters import Init

    def one_by_one(self, parameters, hierarchy=0, quantize=False):
        self._allgather_params_sequential(parameters, hierarchy=hierarchy)

    Init._allgather_params_coalesced = one_by_one
    deepspeed.init_distributed("gloo")


def main(out, cases):
    torch.set_num_threads(1)
    gather_on_gloo()
    makes = (small_models.qwen2, small_models.gemma2, small_models.cohere, small_models.granite)
    torch.manual_seed(0)
    fsdp = {make.__name__: fully_sharded(make) for make in makes}
    fsdp["lora"] = fully_sharded(small_models.qwen2, lora=True)
    trained = {name: train(out=out, **case) for name, case in json.loads(cases).items()}
    torch.save({"fsdp": fsdp, "trained": trained}, f"{out}/{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
