"""What each step of an agent earns, which OpenRLHF's multi-turn executor adds up and hands on as one number.

It runs in the rollout workers, where users' agents run; nothing of OpenRLHF is imported here.
"""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import wraps
from inspect import getattr_static
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from credit.adapters.hooks import check_functions
from credit.adapters.openrlhf import hooks

STEPS = "credit_steps"  # in a response of the executor


class Step(NamedTuple):
    """One call of AgentInstanceBase.step."""

    reward: float
    done: bool


# The steps of the episode that the current task of the event loop runs; samples of a prompt run at once.
_EPISODE: ContextVar[list[Step] | None] = ContextVar("credit_episode", default=None)


def keep_rewards_of_steps(module: ModuleType) -> None:
    """Makes MultiTurnAgentExecutor of openrlhf.utils.agent give its steps beside its response.

    Subclasses that keep its `execute`, or call it, get them too.
    """
    check_functions(hooks.FRAMEWORK, hooks.AGENT)
    module.MultiTurnAgentExecutor.execute = _with_steps(module.MultiTurnAgentExecutor.execute)


def _with_steps(
    execute: Callable[..., Awaitable[dict[str, Any]]],
) -> Callable[..., Awaitable[dict[str, Any]]]:
    @wraps(execute)
    async def run(self: Any, *args: Any, **named: Any) -> dict[str, Any]:
        _record_class(self.agent_instance_cls)
        steps: list[Step] = []
        token = _EPISODE.set(steps)
        try:
            response = await execute(self, *args, **named)
        finally:
            _EPISODE.reset(token)
        response[STEPS] = steps
        return response

    return run


def _record_class(agent: type) -> None:
    """Makes `step` of the user's class record what it returns; one that is no plain method stays unseen."""
    step = getattr_static(agent, "step", None)
    if isinstance(step, FunctionType) and not hasattr(step, "credit_recorded"):
        agent.step = _recorded(step)  # type: ignore[attr-defined]


def _recorded(step: Callable[..., Awaitable[dict[str, Any]]]) -> Callable[..., Awaitable[dict[str, Any]]]:
    @wraps(step)
    async def record(self: Any, *args: Any, **named: Any) -> dict[str, Any]:
        steps = _EPISODE.get()
        token = _EPISODE.set(None)  # so that a step of a base class that this one calls is not a second one
        try:
            result = await step(self, *args, **named)
        finally:
            _EPISODE.reset(token)
        if steps is not None:
            # Read at once, as OpenRLHF does, since an agent may add to the same tensor at every step.
            steps.append(Step(result["rewards"].item(), bool(result["done"])))
        return result

    record.credit_recorded = True  # type: ignore[attr-defined]
    return record
