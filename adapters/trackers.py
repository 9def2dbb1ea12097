"""Recorded completions where people look at their runs: in Weights & Biases, trackio and TensorBoard."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from credit import lens

KEY = "credit/lens"
"""The name under which every tracker has them."""

Log = Callable[[Any], None]


def log_records(lines: Iterable[str], logs: Mapping[str, Log]) -> None:
    """Hands each tracker the completions of one step in its own form; call it on the process that logs.

    What a tracker raises becomes a warning, which Python shows once: the records are in their file, and a
    training shall not end for their picture.

    Args:
        lines: JSON lines from `lens.format_records`.
        logs: for each tracker by its name in `FORMS`, the function that logs what it is given as `KEY`.
    """
    completions = list(lens.parse_records(lines)) if logs else []
    for tracker, log in logs.items():
        form = FORMS[tracker]
        try:
            log(form(completions))
        except Exception as error:  # of the tracker's, its server's or its disk's
            warnings.warn(
                f"{tracker} did not log the completions as {KEY}: {error!r}. Training goes on, and the file "
                "of records, which python -m credit.lens shows, has them",
                stacklevel=2,
            )


def make_wandb_page(completions: Sequence[lens.Completion]) -> Any:
    """The page as `wandb.Html`."""
    import wandb

    return _make_page(wandb.Html, completions)


def make_trackio_page(completions: Sequence[lens.Completion]) -> Any:
    """The page as `trackio.Html`."""
    import trackio

    return _make_page(trackio.Html, completions)


def _make_page(kind: Callable[..., Any], completions: Sequence[lens.Completion]) -> Any:
    # A tracker would inject a style sheet of its own, which the page's security policy forbids.
    return kind(lens.page(completions, f"step {completions[0].step}"), inject=False)


FORMS: dict[str, Callable[[Sequence[lens.Completion]], Any]] = {
    "wandb": make_wandb_page,
    "trackio": make_trackio_page,
    "tensorboard": lens.format_markdown,
}
"""What makes a tracker's form of completions."""
