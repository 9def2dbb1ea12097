"""What Unsloth's own trainer computes with advantages of tokens, against float64: unsloth_run.py OUT

Started by test_unsloth.py where unsloth is installed. Writes what it found to OUT/found.json.
"""

import unsloth_first  # noqa: F401

# isort: split

import functools
import json
import sys
from pathlib import Path

import peft
import tiny_model
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, PrinterCallback

import credit
from credit.adapters.trl import CreditGRPOConfig, CreditGRPOTrainer, rollouts, statistics

OUT = Path(sys.argv[1])
TYPES = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo")
PAD, LENGTH, BETA = 0, 7, 0.05
# Prompts and completions of different lengths: one whose first tokens are a tool's, one with the padding token
# and a tool's inside, one that is masked out, and one that fills the width.
PROMPTS = [[5, 6, 7], [8, 9, 3, 4, 5], [6, 6], [4, 7, 8, 3], [9]]
COMPLETIONS = [[3, 4, 5, 6], [7, 8, 9, 3, 4, 5], [6, PAD, 7, 1], [8, 9], [5, 4, 3, 9, 8, 7, 1]]
TOOL, MASKED = ((1, 0), (1, 1), (2, 2)), 3


def digits(completions, **_):
    """The share of low digits, which varies within almost every group."""
    return [sum(c in "01234" for c in text) / max(len(text), 1) for text in completions]


def load(path, lora=False):
    """A model of transformers with the two methods that Unsloth gives to those that it loads."""
    from unsloth.models.vision import FastBaseModel

    model = AutoModelForCausalLM.from_pretrained(path)
    if lora:
        model = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    for name in ("for_training", "for_inference"):
        setattr(model, name, functools.partial(getattr(FastBaseModel, name), model))
    return model


def make_trainer(estimator="dgpo", kwargs=None, lora=False, **settings):
    """CreditGRPOTrainer on Unsloth's, with prompts of two lengths."""
    tokenizer = tiny_model.character_tokenizer()
    path = OUT / "model"
    if not path.exists():
        tiny_model.small_qwen2(len(tokenizer), hidden_size=32, layers=2).save_pretrained(path)
    defaults = {
        "output_dir": str(OUT / "run"),
        "use_cpu": True,
        "bf16": False,
        "max_steps": 3,
        "logging_steps": 1,
    }
    defaults |= {"num_generations": 4, "per_device_train_batch_size": 8, "max_completion_length": LENGTH}
    defaults |= {"learning_rate": 1e-2, "report_to": "none", "save_strategy": "no", "seed": 1}
    args = CreditGRPOConfig(
        **defaults | settings, advantage_estimator=estimator, advantage_estimator_kwargs=kwargs
    )
    prompts = [f"{a}{b}>" if a % 2 else f"{a}{b}+{a}{b}>" for a in range(10) for b in range(10)]
    dataset = Dataset.from_dict({"prompt": prompts})
    trainer = CreditGRPOTrainer(
        load(path, lora), digits, args=args, train_dataset=dataset, processing_class=tokenizer
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def make_batch():
    """TRL's batch of PROMPTS and COMPLETIONS, with advantages of tokens that are all different."""
    before, width = max(map(len, PROMPTS)), max(map(len, COMPLETIONS))
    prompts = torch.tensor([[PAD] * (before - len(row)) + row for row in PROMPTS])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in COMPLETIONS])
    tool_mask = torch.ones_like(mask)
    tool_mask[tuple(zip(*TOOL, strict=True))] = 0
    mask[MASKED] = 0
    advantages = torch.randn(mask.shape, generator=torch.Generator().manual_seed(0))
    return {
        "prompt_ids": prompts,
        "prompt_mask": (prompts != PAD).long(),
        "completion_ids": torch.tensor([row + [PAD] * (width - len(row)) for row in COMPLETIONS]),
        "completion_mask": mask,
        "tool_mask": tool_mask,
        "advantages": advantages,
        "num_items_in_batch": (mask * tool_mask).sum(),
    }


def logits_of_rows(model, batch):
    """Float64 logits [B, T, V] of forwards of one row at a time without its padding tokens, and the mask [B, T]."""
    model, mask = model.double(), rollouts.token_mask(batch) * (batch["completion_ids"] != PAD)
    found = []
    for prompt, ids in zip(PROMPTS, batch["completion_ids"], strict=True):
        places = (ids != PAD).nonzero()[:, 0]
        logits = model(input_ids=torch.cat([torch.tensor(prompt), ids[places]])[None]).logits[0]
        whole = torch.zeros(len(ids), logits.shape[1], dtype=torch.float64)
        found.append(whole.index_put((places,), logits[len(prompt) - 1 : -1]))
    return torch.stack(found), mask


def log_probs_of_rows(model, batch):
    """The log-probs [B, T] by `logits_of_rows`, and the mask."""
    logits, mask = logits_of_rows(model, batch)
    return credit.selected_log_probs(logits, batch["completion_ids"]), mask


def expected_loss(trainer, kind, new, old, mask, batch):
    """The losses of TRL's documentation, in float64, on rows as they were sampled."""
    a = batch["advantages"].double()
    a = a[:, None] if a.ndim == 1 else a
    log_ratios = (new - old) * mask
    ratio, args = log_ratios.exp(), trainer.args
    if kind == "cispo":
        loss = -ratio.clamp(max=trainer.epsilon_high).detach() * a * new
    elif kind == "sapo":
        t = torch.where(a > 0, args.sapo_temperature_pos, args.sapo_temperature_neg)
        loss = -torch.sigmoid(t * (ratio - 1)) * 4 / t * a
    elif kind == "vespo":
        constants = {n: getattr(args, f"vespo_{n}") for n in ("k_pos", "lambda_pos", "k_neg", "lambda_neg")}
        loss = -a * new * trainer.get_gamma_weights(a, log_ratios, mask, None, **constants)
    else:
        clipped = ratio.clamp(1 - trainer.epsilon_low, 1 + trainer.epsilon_high)
        loss = -torch.min(ratio * a, clipped * a)
    kl = (-log_ratios).exp() + log_ratios - 1  # the reference is `old`
    loss = (loss + trainer.beta * kl * (ratio if args.use_bias_correction_kl else 1)) * mask
    per_row = loss.sum(dim=1)
    if kind in ("grpo", "sapo"):
        return (per_row / mask.sum(dim=1).clamp(min=1)).mean()
    return {
        "bnpo": loss.sum() / mask.sum(),
        "dr_grpo": loss.sum() / (len(mask) * LENGTH),
        "luspo": per_row.mean(),
    }.get(kind, loss.sum() / batch["num_items_in_batch"])


def compare_losses(of_rows):
    """For each type of loss, the relative errors of Unsloth's loss and of its gradient."""
    found = {}
    for kind in TYPES:
        trainer = make_trainer(loss_type=kind, beta=BETA)
        batch, model = make_batch(), trainer.model
        if of_rows:
            batch["advantages"] = batch["advantages"][:, 0]
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        scored = (model, ids, (ids != PAD).long(), LENGTH, len(ids))
        old = log_probs_of_rows(load(OUT / "model"), batch)[0].detach()
        with torch.no_grad():
            own = trainer._get_per_token_logps_and_entropies(*scored)[0]
            noise = torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(1))
            model.lm_head.weight += 0.1 * noise
        other = load(OUT / "model")
        other.load_state_dict(model.state_dict())
        new, mask = log_probs_of_rows(other, batch)
        expected = expected_loss(trainer, kind, new, old, mask, batch)
        expected.backward()
        loss = trainer.compute_loss(model, batch | {"old_per_token_logps": own, "ref_per_token_logps": own})
        loss.backward()
        ours, theirs = (
            torch.cat([p.grad.flatten().double() for p in m.parameters()]) for m in (model, other)
        )
        found[kind] = [
            ((loss.double() - expected).abs() / expected.abs()).item(),
            ((ours - theirs).norm() / theirs.norm()).item(),
        ]
    return found


@torch.no_grad()
def compare_statistics():
    """The largest errors of statistics, against float64 forwards of one row at a time."""
    trainer, batch, names = make_trainer(), make_batch(), ("log_probs", "deviation", "normalized_entropy")
    batch["completion_ids"][2, 1] = 2  # which is padding in make_batch, and then not left out of this forward
    trainer.model.lm_head.weight += 0.3 * torch.randn(trainer.model.lm_head.weight.shape)
    found = statistics.compute_statistics(trainer, batch, rollouts.token_mask(batch), names)
    (policy, mask), (reference, _) = (logits_of_rows(m, batch) for m in (trainer.model, trainer.ref_model))
    expected = credit.token_statistics(policy, reference, batch["completion_ids"], mask=mask)._asdict()
    return {name: (found[name] - expected[name] * mask).abs().max().item() for name in names}


def train(*arguments, resume=None, **settings):
    """The log of each step, and the shape of the advantages that the last batch was given."""
    trainer = make_trainer(*arguments, **settings)
    trainer.train(resume_from_checkpoint=resume)
    log = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    return {"log": log, "shape": list(trainer._buffered_inputs[0]["advantages"].shape)}


def main():
    """Everything, as one record."""
    again = {"num_iterations": 2, "max_steps": 4, "save_strategy": "steps", "save_steps": 1}
    found = {
        "bases": [kind.__name__ for kind in CreditGRPOTrainer.__mro__],
        "tokens": compare_losses(of_rows=False),
        "rows": compare_losses(of_rows=True),
        "statistics": compare_statistics(),
        "dgpo": train("dgpo", {"tau": 0.05}),
        "grpo": train("grpo"),
        "lora": train("dgpo", {"tau": 0.05}, lora=True),
        "its own": train(None),
        "with its constants": train("grpo", {"preset": "trl"}),
        "kept": train("dgpo", {"tau": 0.01}, **again),
        "resumed": train("dgpo", {"tau": 0.01}, **again, resume=str(OUT / "run/checkpoint-1")),
        "reweighted": train("dgpo", {"tau": 0.01}, reweight_with_current_policy=True, **again),
    }
    (OUT / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
