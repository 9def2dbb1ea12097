"""Which derivatives of log-probs and entropies there are on torch, and the errors for the others."""

from functools import cache
from typing import Any, NoReturn

import torch

Tensor = torch.Tensor

_ERROR = (
    "{} of log-probs and entropies is not supported by credit's fast paths for torch, which have the first "
    "derivative in reverse mode; CREDIT_BACKEND=array_api has all derivatives, but takes more time and "
    "memory, and no process_group"
)


def apply_function(function: Any, *arguments: Any) -> Any:
    """function.apply(*arguments), whose forward-mode derivative is refused by name."""
    # torch.compile takes no function with a method jvp, and knows no forward mode.
    chosen = function if torch.compiler.is_compiling() else _without_forward_mode(function)
    return chosen.apply(*arguments)


def refuse_second_derivative(ctx: Any, *grad_output: Tensor | None) -> NoReturn:
    """The method `backward` of a function that is a backward pass: a NotImplementedError."""
    raise NotImplementedError(_ERROR.format("a second derivative"))


@cache
def _without_forward_mode(function: Any) -> Any:
    return type(function)(function.__name__, (function,), {"jvp": staticmethod(_refuse_forward_mode)})


def _refuse_forward_mode(ctx: Any, *tangents: Tensor | None) -> NoReturn:
    raise NotImplementedError(_ERROR.format("forward-mode differentiation"))
