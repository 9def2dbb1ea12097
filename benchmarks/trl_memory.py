"""Peak memory of TRL's scoring pass beside its models, every figure in a fresh process.

    python benchmarks/trl_memory.py              # this CPU; --device cuda for a GPU

Policy and reference are Qwen2 models made on the spot, with the vocabulary of 151,936; extra memory is the
growth of the peak (resident memory, or allocations on a GPU) in one call that scores 4 rows of 1024 tokens.
The naive way is policy and reference run whole, with each statistic from its formula, on `rows` rows.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import memory
import peers
import torch
from measurements import MB, RESULTS, cpu_name
from transformers import Qwen2Config, Qwen2ForCausalLM

PROMPT, COMPLETION, VOCABULARY = 128, 896, 151_936
CASES = [  # way, rows, hidden size, size of the MLP, budget in MB
    ("ours", 4, 896, 4864, 256),
    ("ours", 4, 64, 256, 256),
    ("naive", 1, 64, 256, 0),
]


def models(hidden: int, inner: int, device: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Policy and reference of two layers; more layers need no more memory without gradients."""
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=2,
        num_attention_heads=max(1, hidden // 64),
        num_key_value_heads=max(1, hidden // 448),
        tie_word_embeddings=True,
    )
    pair = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        pair.append(Qwen2ForCausalLM(config).to(device, dtype).eval())
    return tuple(pair)


def trainer_over(policy: Any, reference: Any, budget: float, device: str) -> Any:
    """What the scoring pass reads of a trainer."""
    from accelerate import Accelerator

    import credit
    from credit.adapters.trl import forward

    trainer = SimpleNamespace(
        model=policy,
        ref_model=reference,
        accelerator=Accelerator(cpu=device == "cpu"),
        temperature=1.0,
        args=SimpleNamespace(
            gradient_checkpointing_kwargs=None, statistics_memory_mb=budget, cast_lm_head_to_fp32=False
        ),
        credit_estimator=credit.DGPO(),
        credit=SimpleNamespace(kept=None),
    )
    for model in (policy, reference):
        forward.prepare_head(trainer, model)
    return trainer


def batch(rows: int, prompt: int, completion: int, device: str) -> dict[str, torch.Tensor]:
    """A generated batch without padding, the worst case."""
    ids = torch.randint(VOCABULARY, (rows, prompt + completion), device=device)
    parts = {"prompt_ids": ids[:, :prompt], "completion_ids": ids[:, prompt:]}
    return parts | {
        "prompt_mask": torch.ones_like(parts["prompt_ids"]),
        "completion_mask": torch.ones_like(parts["completion_ids"]),
    }


def naively(policy: Any, reference: Any, output: dict[str, torch.Tensor]) -> Any:
    """Logits of both models whole, and the formulas on them."""
    ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
    with torch.no_grad():
        x, y = (model(input_ids=ids).logits[:, :-1].flatten(0, 1) for model in (policy, reference))
        return peers.naive(x, y, ids[:, 1:].flatten())


def measure(way: str, rows: int, hidden: int, inner: int, budget: float, device: str) -> dict[str, Any]:
    """One case in this process."""
    torch.set_num_threads(1)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    policy, reference = models(hidden, inner, device, dtype)
    if way == "ours":
        from credit.adapters.trl import statistics

        trainer = trainer_over(policy, reference, budget, device)

        def score(output: dict[str, torch.Tensor]) -> Any:
            return statistics.compute_statistics(trainer, output, output["completion_mask"])
    else:

        def score(output: dict[str, torch.Tensor]) -> Any:
            return naively(policy, reference, output)

    score(batch(1, 4, 4, device))
    output = batch(rows, PROMPT, COMPLETION, device)
    before = memory.start(device)
    started = time.perf_counter()
    score(output)
    extra = memory.highest(device) - before
    return {
        "way": way,
        "rows": rows,
        "tokens": PROMPT + COMPLETION,
        "hidden": hidden,
        "mlp": inner,
        "statistics_memory_mb": budget,
        "extra_mb": round(extra / MB, 1),
        "seconds": round(time.perf_counter() - started, 2),
    }


def main(device: str) -> None:
    """Every case in a process of its own; prints the rows and writes them."""
    rows = []
    for case in CASES:
        command = [sys.executable, __file__, "--device", device, "--case", json.dumps(case)]
        printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        rows.append(json.loads(printed.splitlines()[-1]))
        print(rows[-1], flush=True)
    name = cpu_name() if device == "cpu" else torch.cuda.get_device_name()
    facts = {"device": name, "torch": torch.__version__, "vocabulary": VOCABULARY}
    path = RESULTS / f"trl_memory_{device}.json"
    path.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")
    print(f"{name}; written to {Path(path)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(*json.loads(options.case), device=options.device)))
    else:
        main(options.device)
