"""Recorded completions where people look at their runs: in Weights & Biases, trackio and TensorBoard."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from credit import lens

KEY = "credit/lens"
"""The name under which every tracker has them."""
STEP = "train/global_step"
"""The metric by which transformers and OpenRLHF tell trackers the training step."""

Log = Callable[[Any], None]


def log_records(lines: Iterable[str], logs: Mapping[str, Log]) -> None:
    """Hands each tracker the completions of one step in its own form; call it on the process that logs.

    What goes wrong here becomes a warning: the records are in their file, and a training shall not end for
    their picture.

    Args:
        lines: JSON lines from `lens.format_records`.
        logs: for each tracker by its name in `FORMS`, the function that logs what it is given as `KEY`.
    """
    completions = list(lens.parse_records(lines)) if logs else []
    for tracker, log in logs.items():
        try:
            log(FORMS[tracker](completions))
        except Exception as error:  # ours, the tracker's, its server's or its disk's
            warnings.warn(
                f"could not show the completions as {KEY} in {tracker}: {error!r}. Training goes on, and the "
                "file of records, which python -m credit.lens shows, has them",
                stacklevel=2,
            )


def log_to_wandb(wandb: Any, step: int, page: Any) -> None:
    """Logs a page where the framework names no step of wandb's own."""
    # wandb drops what comes with a step of its own that is smaller than its last.
    wandb.log({KEY: page, STEP: step})


def log_to_tensorboard(writer: Any, step: int, text: str) -> None:
    """Logs a text by a SummaryWriter."""
    writer.add_text(KEY, text, step)


def make_page(tracker: str, completions: Sequence[lens.Completion]) -> Any:
    """The page as the `Html` of the tracker of that name, wandb or trackio."""
    page = lens.page(completions, f"step {completions[0].step}")
    # A tracker would inject a style sheet of its own, which the page's security policy forbids.
    return import_module(tracker).Html(page, inject=False)


FORMS: dict[str, Callable[[Sequence[lens.Completion]], Any]] = {
    "wandb": partial(make_page, "wandb"),
    "trackio": partial(make_page, "trackio"),
    "tensorboard": lens.format_markdown,
}
"""What makes a tracker's form of completions."""
