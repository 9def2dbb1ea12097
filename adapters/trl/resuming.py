"""What a checkpoint needs beside TRL's own, so that a resumed run takes the steps of an unbroken one."""

import warnings
from pathlib import Path
from typing import Any

import torch


def save_state(trainer: Any, folder: str) -> None:
    """Writes this process' position in the batch that it trains on and in the stream of further prompts."""
    every = trainer.args.steps_per_generation * trainer.num_iterations
    state = {
        "layout": _batch_layout(trainer),
        "step": trainer._step,
        "batch": trainer._buffered_inputs if trainer._step % every else None,
        "returns_lists": trainer.credit.returns_lists,
        "drawn": trainer.credit.prompts.drawn if trainer.credit.prompts else 0,
    }
    torch.save(state, _state_path(trainer, folder))


def load_state(trainer: Any, checkpoint: str) -> None:
    """Restores what `save_state` wrote, and the order of prompts of the checkpoint's epoch.

    TRL itself generates a new batch although it was in the middle of one, and begins a resumed epoch
    with the order of prompts of the first.
    """
    if trainer.credit.sampler is not None and not trainer.args.ignore_data_skip:
        _rewind_sampler(trainer.credit.sampler, int(trainer.state.epoch or 0))
    if trainer.args.sync_ref_model:
        warnings.warn(
            "TRL's checkpoints do not contain a reference that follows the policy (sync_ref_model); it "
            "starts again as the model before training",
            stacklevel=2,
        )
    path = _state_path(trainer, checkpoint)
    if not path.exists():
        warnings.warn(
            f"{checkpoint} has no {path.name}, so this run starts with a new batch, and its further prompts "
            "(dynamic_sampling='resample') start again",
            stacklevel=2,
        )
        return
    state = torch.load(path, map_location=trainer.accelerator.device, weights_only=True)
    if trainer.credit.prompts is not None:
        trainer.credit.prompts.drawn = state["drawn"]
    trainer.credit.returns_lists = state.get("returns_lists", False)  # not in a checkpoint of release 0.1
    if state["layout"] == _batch_layout(trainer):
        trainer._step, trainer._buffered_inputs = state["step"], state["batch"]
    elif state["batch"] is not None:
        warnings.warn(
            "the batches differ in size from those of the checkpoint, so a new batch is generated",
            stacklevel=2,
        )


def _rewind_sampler(sampler: Any, passes: int) -> None:
    """Sets the state that TRL's sampler has after so many passes over the data."""
    if sampler.shuffle:
        sampler.generator.manual_seed(sampler.seed)
        for _ in range(passes):
            torch.randperm(sampler.num_samples, generator=sampler.generator)


def _batch_layout(trainer: Any) -> list[int]:
    args = trainer.args
    sizes = (args.per_device_train_batch_size, args.steps_per_generation, args.gradient_accumulation_steps)
    return [trainer.accelerator.num_processes, *sizes, trainer.num_iterations]


def _state_path(trainer: Any, folder: str) -> Path:
    return Path(folder) / f"credit_state_{trainer.accelerator.process_index}.pt"
