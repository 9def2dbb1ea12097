"""What a checkpoint needs beside TRL's, so that a resumed run does what an unbroken one would have done."""

import warnings
from pathlib import Path
from typing import Any

import torch


def save_state(trainer: Any, folder: str) -> None:
    """Writes this process' place in the batch that it trains on, and in the stream of further prompts."""
    every = trainer.args.steps_per_generation * trainer.num_iterations
    state = {
        "layout": _batch_layout(trainer),
        "step": trainer._step,
        "batch": trainer._buffered_inputs if trainer._step % every else None,
        "drawn": trainer.credit_prompts.drawn if trainer.credit_prompts else 0,
    }
    torch.save(state, _state_path(trainer, folder))


def load_state(trainer: Any, checkpoint: str) -> None:
    """Takes up what `save` wrote, and the order of prompts of the epoch that the checkpoint is in.

    TRL itself generates a new batch where it was in the middle of one, and begins every resumed epoch
    with the order of the first.
    """
    if trainer.credit_sampler is not None and not trainer.args.ignore_data_skip:
        _rewind_sampler(trainer.credit_sampler, int(trainer.state.epoch or 0))
    if trainer.args.sync_ref_model:
        warnings.warn(
            "TRL's checkpoints do not hold a reference that follows the policy (sync_ref_model); it begins "
            "again as the model was before training",
            stacklevel=2,
        )
    path = _state_path(trainer, checkpoint)
    if not path.exists():
        warnings.warn(
            f"{checkpoint} has no {path.name}, so this run begins with a new batch, and its further prompts "
            "(dynamic_sampling='resample') begin anew",
            stacklevel=2,
        )
        return
    state = torch.load(path, map_location=trainer.accelerator.device, weights_only=True)
    if trainer.credit_prompts is not None:
        trainer.credit_prompts.drawn = state["drawn"]
    if state["layout"] == _batch_layout(trainer):
        trainer._step, trainer._buffered_inputs = state["step"], state["batch"]
    elif state["batch"] is not None:
        warnings.warn(
            "the batches have another size than in the checkpoint; beginning a new one", stacklevel=2
        )


def _rewind_sampler(sampler: Any, passes: int) -> None:
    """Puts TRL's sampler where it is after so many passes over the data."""
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
