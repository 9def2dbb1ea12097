"""Step time of DGPO in TRL beside stock GRPO, with and without KL, on one model in one run; writes JSON.

    python benchmarks/trl_step.py                    # this CPU, a small model
    python benchmarks/trl_step.py --size cpu_8m      # this CPU, 8 million parameters, where forwards dominate
    python benchmarks/trl_step.py --size cuda        # 0.5B parameters, bf16, length 2048; a training curve

Weights are drawn on the spot. Completions of the timed steps are given, of random lengths, so that a step is
scoring and learning alone; what generating them takes is timed once, and stands beside. The arms take turns.
On a CPU the seconds of steps are those that the process computed for, since others may share the machine;
statistics_seconds are of the wall, as in the log of training.
The curve has real generation, and a reward that any model can learn: tokens of the vocabulary's first half.
"""

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import memory
import numpy as np
import random_model
import torch
from measurements import MB, RESULTS, attempt, cpu_name
from records import UNFINISHED, read_json, write_json
from transformers import TrainerCallback
from trl_arms import ARMS, SIZES, TWICE, WITH_KL, Size, given_completions, trainer_of

WARM_UP = 2
ENDING = 5.0  # seconds before the deadline at which a curve ends, so that it is not lost
GENERATED = 64  # tokens of each response, where generation alone is timed


def clock(device: str) -> Callable[[], float]:
    """Seconds of computing on a CPU, of the wall on a GPU."""
    return time.process_time if device == "cpu" else time.perf_counter


class Clock(TrainerCallback):
    """Seconds of every step, and the peak of memory after the first ones."""

    def __init__(self, device: str) -> None:
        self.device, self.seconds, self.now = device, [], clock(device)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == WARM_UP:
            self.before = memory.start(self.device)
        self.started = self.now()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.peak = memory.highest(self.device)
        self.seconds.append(self.now() - self.started)


class Until(TrainerCallback):
    """Ends training at a deadline."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop |= time.monotonic() > self.deadline


def timed(arm: str, size: Size, device: str, path: str) -> dict[str, Any]:
    """Steps of one arm over given completions."""
    clock = Clock(device)
    settings = {
        "max_steps": WARM_UP + size.steps,
        "max_completion_length": size.completion,
        "learning_rate": 1e-6,
    }
    trainer = trainer_of(arm, size, device, path, rollout_func=given_completions(size), **settings)
    trainer.add_callback(clock)
    trainer.train()
    seconds = clock.seconds[WARM_UP:]
    if ARMS[arm][2].keys() >= TWICE.keys():  # the mean of the two steps on a batch, of which one scores it
        seconds = [float(pair.mean()) for pair in np.split(np.asarray(seconds), len(seconds) // 2)]
    scoring = [entry.get("credit/statistics_seconds", 0.0) for entry in trainer.state.log_history[WARM_UP:-1]]
    extra = (clock.peak - clock.before) / MB
    return {"seconds": seconds, "scoring": scoring, "peak_extra_mb": extra}


def generation(size: Size, device: str, path: str) -> float:
    """Seconds to sample a token of each response of one batch with transformers."""
    trainer = trainer_of("GRPO", size, device, path, max_completion_length=size.completion)
    ids = torch.randint(2, size.vocabulary, (size.rows, size.prompt), device=trainer.accelerator.device)
    now = clock(device)
    started = now()
    with torch.no_grad():
        trainer.model.eval().generate(ids, max_new_tokens=GENERATED, do_sample=True, eos_token_id=None)
    memory.highest(device)
    return (now() - started) / GENERATED


def curve(arm: str, size: Size, device: str, path: str, deadline: float) -> list[dict[str, float]]:
    """Reward and what the weights do, step by step, with real generation."""
    settings = {"max_steps": size.curve_steps, "max_completion_length": size.curve_completion}
    weights = {"dtype": "float32"}  # steps this small round away in bfloat16
    trainer = trainer_of(arm, size, device, path, learning_rate=3e-5, model_init_kwargs=weights, **settings)
    trainer.add_callback(Until(deadline - ENDING))
    trainer.train()
    names = ("step", "reward", "loss", "step_time", "credit/deviation_mean", "credit/weight_std")
    return [
        {n: entry[n] for n in names if n in entry} for entry in trainer.state.log_history if "loss" in entry
    ]


class Record:
    """The runs of each arm and what else was found, on disk after every part; an earlier call's are kept."""

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path = path
        self.found: dict[str, Any] = {**facts, "runs": {}, "generation": {}, "curves": {}, "failed": {}}
        before = read_json(path)
        if before.keys() >= self.found.keys() and all(before[name] == facts[name] for name in facts):
            self.found |= {name: before[name] for name in ("runs", "generation")}
            whole = facts["size"]["curve_steps"]
            self.found["curves"] = {arm: c for arm, c in before["curves"].items() if len(c) == whole}

    def add(self, where: str, name: str, make: Callable[[], Any], deadline: float) -> None:
        """Runs a part, unless an earlier call has."""
        if name in self.found[where]:
            return
        wrong = attempt(lambda: self.found[where].update({name: make()}), deadline)
        if wrong is not None:
            self.found["failed"][name] = wrong
            print(name, wrong)
        gc.collect()  # a trainer refers to itself, and holds a model
        self.write()

    def write(self) -> None:
        """What there is so far, printed and as JSON."""
        runs = self.found["runs"]
        arms = [arm for arm in ARMS if any(name.startswith(f"{arm}, round") for name in runs)]
        table = {arm: summary([runs[n] for n in runs if n.startswith(f"{arm}, round")]) for arm in arms}
        for arm, row in table.items():
            other = table.get(WITH_KL[arm])
            if other is not None:
                row["ratio_to_grpo_with_kl"] = row["step_seconds"] / other["step_seconds"]
            print(arm, row)
        write_json(self.path, {**self.found, "arms": table})
        print(f"{self.found['parameters'] / 1e6:.0f}M parameters; written to {self.path}", flush=True)


def main(label: str, rounds: int, time_limit: float, folder: Path) -> int:
    """Step times, memory and, on a GPU, the curve. The exit status, 75 where only the time was over."""
    size, deadline = SIZES[label], time.monotonic() + time_limit
    device = "cuda" if label == "cuda" else "cpu"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as path:
        facts = {
            "device": cpu_name() if device == "cpu" else torch.cuda.get_device_name(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "size": size._asdict(),
            "rounds": rounds,
            "parameters": random_model.save(path, size, device),
        }
        record = Record(folder / f"trl_step_{label}.json", facts)
        for turn in range(rounds):
            for arm in ARMS:
                run = partial(timed, arm, size, device, path)
                record.add("runs", f"{arm}, round {turn}", run, deadline)
        for arm in ("GRPO", "DGPO") if size.curve_steps else ():
            record.add("curves", arm, partial(curve, arm, size, device, path, deadline), deadline)
        record.add("generation", "seconds_per_token", partial(generation, size, device, path), deadline)
    failed = list(record.found["failed"].values())
    over = [wrong for wrong in failed if wrong.startswith("OutOfTime")]
    return 0 if not failed else UNFINISHED if len(over) == len(failed) else 1


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over an arm's steps of all rounds."""
    seconds = [s for run in runs for s in run["seconds"]]
    return {
        "step_seconds": float(np.median(seconds)),
        "step_seconds_p20_p80": [float(q) for q in np.quantile(seconds, [0.2, 0.8])],
        "statistics_seconds": float(np.median([s for run in runs for s in run["scoring"]])),
        "peak_extra_mb": max(run["peak_extra_mb"] for run in runs),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="cpu", choices=sorted(SIZES), help="and with it the device")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--time-limit", type=float, default=float("inf"), help="seconds after which no part is begun"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sys.exit(main(options.size, options.rounds, options.time_limit, options.output))
