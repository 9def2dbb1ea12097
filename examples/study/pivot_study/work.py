"""Works off pieces over processes of one thread each; a piece that is recorded is not done again."""

import json
import multiprocessing
import os
import time
import traceback
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm.auto import tqdm

from pivot_study.plan import (
    Piece,
    Plan,
    list_calm_trainings,
    list_drifts,
    list_rates,
    list_trainings,
    list_warm_ups,
)

Record = dict[str, Any]


def run(plan: Plan, folder: Path, workers: int) -> list[Record]:
    """All records of the plan, computed or read; the learning rates are chosen on the way."""
    remember(plan, folder)
    first = list_warm_ups(plan)
    later = [*list_drifts(plan), *list_rates(plan)]
    started = work_off(first, plan, folder, workers, "warm-ups")
    found = work_off(later, plan, folder, workers, "drifts and learning rates")
    trainings = list_trainings(plan, choose_rates(found)) + list_calm_trainings(plan)
    return started + found + work_off(trainings, plan, folder, workers, "training")


def remember(plan: Plan, folder: Path) -> None:
    """Refuses a folder that holds pieces of another plan."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "plan.json"
    own = json.loads(json.dumps(asdict(plan)))
    if path.exists() and read(path) != own:
        raise ValueError(f"{path} is of another plan; give another --output")
    path.write_text(json.dumps(own, indent=1) + "\n")


def choose_rates(records: Sequence[Record]) -> dict[tuple[str, str], float]:
    """By cell and arm: the learning rate of the highest mean reward over training, on seeds of their own."""
    rewards: dict[tuple[str, str], dict[float, list[float]]] = {}
    for record in records:
        if record["kind"] == "rate":
            of_arm = rewards.setdefault((record["cell"], record["arm"]), {})
            of_arm.setdefault(record["rate"], []).append(fmean(record["rewards"]))
    return {
        key: max(of_arm, key=lambda rate, of_arm=of_arm: fmean(of_arm[rate]))
        for key, of_arm in rewards.items()
    }


def work_off(pieces: Sequence[Piece], plan: Plan, folder: Path, workers: int, title: str) -> list[Record]:
    """The pieces' records, in their order."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the workers when they load torch
    left = [piece for piece in pieces if not (folder / f"{piece.name}.json").exists()]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context) as pool:
        futures = [pool.submit(compute, piece, plan, folder) for piece in left]
        try:
            with tqdm(
                as_completed(futures), title, len(pieces), initial=len(pieces) - len(left), smoothing=0
            ) as bar:
                for future in bar:
                    future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [read(folder / f"{piece.name}.json") for piece in pieces]


def compute(piece: Piece, plan: Plan, folder: Path) -> None:
    """Computes a piece and writes its record at once or not at all; an error names the piece."""
    import torch

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="effective_fraction is missed")
    started = time.process_time()
    try:
        found = _compute(piece, plan, folder)
    except Exception as error:
        raise RuntimeError(f"{piece.name}: {traceback.format_exc(limit=-3)}") from error
    named = {"kind": piece.kind, "cell": piece.cell.name, "seed": piece.seed}
    if piece.regime:
        named |= {"arm": piece.arm, "rate": piece.regime.rate} if piece.arm else {"regime": piece.regime.name}
    record = named | found | {"cpu_seconds": round(time.process_time() - started, 1)}
    fresh = folder / f"{piece.name}.new"
    fresh.write_text(json.dumps(record) + "\n")
    os.replace(fresh, folder / f"{piece.name}.json")


def _compute(piece: Piece, plan: Plan, folder: Path) -> Record:
    import torch

    from pivot_study.drift import describe, drift
    from pivot_study.gradients import measure
    from pivot_study.policy import warm_up
    from pivot_study.training import train

    weights = folder / f"{Piece('warm-up', piece.cell, piece.seed).name}.pt"
    if piece.kind == "warm-up":
        found = warm_up(piece.cell, piece.seed, plan.warm_up_steps, plan.least_reward)
        torch.save(found.policy, weights)
        return {"reward": found.reward, "attempts": found.attempts}
    reference = torch.load(weights, weights_only=True)
    generator = torch.Generator().manual_seed(piece.seed + 7)
    if piece.arm:
        return train(piece.cell, reference, piece.arm, piece.regime, generator)
    checkpoints = []
    for number, checkpoint in enumerate(drift(piece.cell, reference, piece.regime, generator)):
        own = torch.Generator().manual_seed(100 * piece.seed + number)
        found = describe(piece.cell, reference, checkpoint, own)
        if piece.measured:
            models = checkpoint.policy, checkpoint.half_way, reference
            found["gradients"] = measure(piece.cell, models, plan.truth_groups, plan.small_batches, own)
        checkpoints.append(found)
    return {"checkpoints": checkpoints}


def read(path: Path) -> Record:
    """A record; an error names the file and what to do."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"{path} is spoiled ({error}); delete it, and the same command computes it anew"
        ) from error
