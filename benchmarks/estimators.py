"""Times the estimators' arithmetic at N = 4096, T = 8192: python benchmarks/estimators.py [--device cuda]

The half per response beside verl's way (a Python loop over rows, as in its compute_grpo_outcome_advantage),
and the whole call, eager and compiled, beside the bare writing of its two outputs [N, T].
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measurements import cpu_name

import credit
from credit.estimators.prepare import prepare_rows


def loop_over_rows(rewards: torch.Tensor, groups: Any, mask: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    """verl 0.5's GRPO, written after its core_algos.py: token rewards summed, then lists per group."""
    scores = rewards.sum(dim=-1)
    by_group, mean, deviation = defaultdict(list), {}, {}
    for i in range(scores.shape[0]):
        by_group[groups[i]].append(scores[i])
    for group, members in by_group.items():
        stacked = torch.stack(members)
        mean[group], deviation[group] = torch.mean(stacked), torch.std(stacked)
    for i in range(scores.shape[0]):
        scores[i] = (scores[i] - mean[groups[i]]) / (deviation[groups[i]] + eps)
    return scores.unsqueeze(-1) * mask


def seconds(function: Callable[[], Any], device: str, repeats: int = 5) -> float:
    """Median wall time after one call to warm up."""
    function()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        if device != "cpu":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


@cache
def fast(estimator: credit.Estimator) -> Any:
    return torch.compile(lambda rollouts: estimator(rollouts)[:2], dynamic=False)


def main(rows: int, tokens: int, device: str) -> None:
    """Prints and writes the table."""
    generator = torch.Generator(device).manual_seed(0)
    rewards = torch.rand(rows, generator=generator, device=device)
    groups = torch.arange(rows, device=device) // 8
    mask = torch.arange(tokens, device=device) < torch.randint(
        1, tokens, (rows, 1), generator=generator, device=device
    )
    d, h = (torch.rand(rows, tokens, generator=generator, device=device) for _ in range(2))
    rollouts = credit.Rollouts(rewards, groups, mask, deviation=d, normalized_entropy=h)
    token_rewards = torch.zeros(rows, tokens, device=device)
    token_rewards[:, -1] = rewards
    keys = groups.cpu().numpy()
    grpo, dgpo = credit.GRPO(), credit.DGPO(tau=0.1)
    ready = prepare_rows(grpo.name, rollouts, ())
    cases = {
        "GRPO, half per response": lambda: grpo.advantages(ready),
        "loop over rows (verl's way), summing and spreading included": lambda: loop_over_rows(
            token_rewards, keys, mask
        ),
        "loop over rows (verl's way), alone": lambda: loop_over_rows(rewards[:, None], keys, mask[:, :1]),
        "GRPO, whole call": lambda: grpo(rollouts),
        "DGPO, whole call": lambda: dgpo(rollouts),
        "GRPO, whole call, torch.compile": lambda: fast(grpo)(rollouts),
        "DGPO, whole call, torch.compile": lambda: fast(dgpo)(rollouts),
        "writing two [N, T] outputs": lambda: (torch.full_like(d, 1.0), torch.full_like(d, 2.0)),
    }
    figures = {name: 1e3 * seconds(function, device) for name, function in cases.items()}
    for name, ms in figures.items():
        print(f"{name:64s}{ms:10.2f} ms")
    name = cpu_name() if device == "cpu" else torch.cuda.get_device_name()
    path = Path(__file__).parent / "results" / f"estimators_{device}.json"
    facts = {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}
    path.write_text(json.dumps({**facts, "rows": rows, "tokens": tokens, "ms": figures}, indent=1) + "\n")
    print(f"{name}; written to {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    main(options.rows, options.tokens, options.device)
