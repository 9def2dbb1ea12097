"""Advantages and the mask in the layout of the loss that Unsloth generates.

It moves the padding of each row behind all other tokens and takes the last T + max_left_pad columns, in which
completions begin at different places. Log-probs and the mask of tools are moved along, advantages of tokens
are not; and the mask is made anew from the ids, so that a row which was masked out would be back. Both are
put right here, and are compared with what the loss is given, since another release may do it otherwise.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn.functional import pad

from credit.adapters.fields import needed_statistics
from credit.adapters.trl import images, rollouts, statistics
from credit.adapters.trl.hooks import UNSLOTH
from credit.adapters.trl.unsloth import LOSS, find_trainer, loss_globals

Tensor = torch.Tensor
SCORED = ("old_per_token_logps", "ref_per_token_logps")  # in the batch, [B, W], if the loss reads them
ARGUMENTS = {"ids": 5, "mask": 6, "advantages": 7}  # places among the arguments of LOSS
OURS = "credit_log_probs"  # in the first batch, [B, T]: of the forward that token statistics come from
ROUNDING = 0.2  # nats per token, more than kernels in half precision differ by


def refuse_images(trainer: Any, batch: dict[str, Any]) -> None:
    """Raises ValueError for images with an estimator that reads or weighs tokens."""
    estimator = trainer.credit.estimator
    of_tokens = needed_statistics(estimator) or not trainer.credit.per_response
    if of_tokens and images.has_images(batch) and find_trainer(type(trainer)) is not None:
        raise ValueError(
            f"{estimator.name} reads or weighs tokens, for which Unsloth's layout of rows with images is not "
            "known; use an estimator such as grpo, or TRL without Unsloth"
        )


def add_log_probs(trainer: Any, batch: dict[str, Any]) -> None:
    """Adds to a run's first batch the log-probs of the forward that token statistics come from."""
    state = trainer.credit
    if state.scored_step is None and needed_statistics(state.estimator) and find_trainer(type(trainer)):
        mask = rollouts.token_mask(batch)
        batch[OURS] = statistics.compute_statistics(trainer, batch, mask, ["log_probs"])["log_probs"]
        state.scored_step = trainer.state.global_step


@contextmanager
def use_layout(trainer: Any, inputs: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Within it, the loss of the yielded inputs gives each token its advantage, and masks what TRL masks.

    Raises:
        RuntimeError: Unsloth's loss was computed from something else.
    """
    owner = find_trainer(type(trainer))
    if owner is None or trainer.credit.estimator is None or images.has_images(inputs):
        yield inputs
        return
    expected, given = _lay_out(inputs, trainer.processing_class.pad_token_id)
    log_probs, sampled = given.pop(OURS, None), trainer.state.global_step == trainer.credit.scored_step
    names, agreed = loss_globals(owner), list[bool]()
    loss = names[LOSS]

    def compare(*arguments: Any) -> Any:
        found = {name: arguments[place] for name, place in ARGUMENTS.items()}
        agreed.append(all(_equals(found[name], expected[name]) for name in expected))
        if agreed == [True] and log_probs is not None and sampled:
            _refuse_other_log_probs(log_probs, arguments[0], expected["mask"])
        return loss.apply(*arguments)

    names[LOSS] = SimpleNamespace(apply=compare)
    try:
        yield given
    finally:
        names[LOSS] = loss
    if agreed != [True]:
        raise RuntimeError(
            "Unsloth's loss did not get each token's advantage in the layout that credit expects; use "
            f"unsloth {UNSLOTH.supported}, or TRL without Unsloth"
        )


def _lay_out(inputs: dict[str, Any], padding: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The ids, mask [B, W] and advantages that the loss is to be computed from, and the inputs for that."""
    prompts, completions, advantages = (inputs[n] for n in ("prompt_ids", "completion_ids", "advantages"))
    ids, mask = torch.cat([prompts, completions], dim=1), rollouts.token_mask(inputs)
    scored = [inputs[name].shape[1] for name in SCORED if inputs.get(name) is not None]
    width = scored[0] if scored else completions.shape[1] + int((prompts == padding).sum(dim=1).max())
    move = _move_into(ids, padding, width)
    if advantages.ndim == 2:
        advantages = move(advantages)
    expected = {"ids": move(ids), "mask": move(mask) * (move(ids) != padding), "advantages": advantages}
    # Unsloth places the mask of tools from a completion's first token on, whatever was moved within it.
    packed = mask.gather(1, _order(completions, padding))
    given = inputs | {"advantages": advantages, "tool_mask": packed}
    return expected, given | {name: move(inputs[name]) for name in (OURS,) if name in inputs}


def _refuse_other_log_probs(ours: Tensor, theirs: Tensor, mask: Tensor) -> None:
    """Raises RuntimeError if the log-probs [B, W] of token statistics are not those of the loss."""
    differences = (ours - theirs.detach()).abs()[mask.bool()]
    if differences.numel() and not differences.mean() <= ROUNDING:
        raise RuntimeError(
            "the log-probs of Unsloth's loss and of the forward that token statistics come from differ by "
            f"{differences.mean():.3g} nats per token, so that statistics would be of another model; use an "
            "estimator that reads rewards alone, such as grpo, or TRL without Unsloth"
        )


def _move_into(ids: Tensor, padding: int, width: int) -> Callable[[Tensor], Tensor]:
    """The function from values [B, T] of completions, or [B, L] of rows, to those of the window [B, W]."""
    order = _order(ids, padding)

    def move(values: Tensor) -> Tensor:
        whole = pad(values, (ids.shape[1] - values.shape[1], 0))
        return whole.gather(1, order)[:, -width:]

    return move


def _order(ids: Tensor, padding: int) -> Tensor:
    """The places [B, L] of a row's tokens in their order, and behind them those of its padding."""
    return (ids != padding).int().argsort(dim=1, descending=True, stable=True)


def _equals(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and bool((found == expected.to(found.device)).all())
