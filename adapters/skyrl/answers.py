"""How an estimator's advantages get into SkyRL's own step, which asks its registry for them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

Tensor = torch.Tensor
Answer = tuple[Tensor, Tensor]

_ANSWER: ContextVar[Answer | None] = ContextVar("credit_answer", default=None)


def answer(**_: Any) -> Answer:
    """What is registered under the estimator's name: advantages and returns that the trainer has computed."""
    found = _ANSWER.get()
    if found is None:
        raise RuntimeError(
            "this name is that of an estimator for credit's trainer, and another trainer asks for it; start "
            "SkyRL with trainer.override_entrypoint=credit.adapters.skyrl"
        )
    return found


@contextmanager
def given(cfg: Any, data: Any, advantages: Tensor, returns: Tensor) -> Iterator[Callable[[Any, Any], Any]]:
    """Within it SkyRL's step takes these advantages and returns [N, T].

    It yields what settles the step's result. With steps as rows SkyRL asks for the last ones alone, and
    would give their advantages to all.
    """
    asked: Any = slice(None)
    stepwise = cfg.generator.step_wise_trajectories
    if stepwise:
        asked = torch.tensor(data.metadata["is_last_step"], dtype=torch.bool)
    token = _ANSWER.set((advantages[asked], returns[asked]))

    def settle(trainer: Any, result: Any) -> Any:
        if stepwise:
            result["advantages"], result["returns"] = advantages, returns
            _log_again(trainer, result)
        return result

    try:
        yield settle
    finally:
        _ANSWER.reset(token)


def _log_again(trainer: Any, data: Any) -> None:
    """SkyRL's means of the advantages, with those of all steps."""
    count = len(data["advantages"]) - data.metadata.get("pad_size", 0)
    chosen = data["advantages"][:count][data["response_mask"][:count].bool()]
    mean, size = chosen.mean().item(), chosen.abs().mean().item()
    data.metadata["metrics"] |= {"avg_advantages": mean, "avg_advantages_abs": size}
    trainer.all_metrics |= {"loss/avg_raw_advantages": mean, "loss/avg_raw_advantages_abs": size}
