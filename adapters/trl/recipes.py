"""Whole papers as one setting: the options that `recipe` fills in if the user does not set them."""

from collections.abc import Callable
from typing import Any


def dapo(args: Any) -> dict[str, Any]:
    """Clip-higher, token loss, no KL, dynamic sampling, overlong filter and penalty: arXiv 2503.14476."""
    return {
        "advantage_estimator": "dapo",
        "loss_type": "dapo",
        "epsilon": 0.2,
        "epsilon_high": 0.28,
        "beta": 0.0,
        "dynamic_sampling": "resample",
        "mask_truncated_completions": True,
        "overlong_cache_length": max(overlong_length(args) // 5, 1),  # 4096 of 20480 tokens
    }


RECIPES: dict[str, Callable[[Any], dict[str, Any]]] = {"dapo": dapo}


def fill_options(args: Any) -> None:
    """Gives every option that is None the recipe's value; options that the user set stay."""
    for name, value in recipe_options(args).items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def recipe_options(args: Any) -> dict[str, Any]:
    """The options of the recipe that `args` names; empty without a recipe."""
    if args.recipe is None:
        return {}
    if args.recipe not in RECIPES:
        raise ValueError(f"unknown recipe {args.recipe!r}; known: {', '.join(sorted(RECIPES))}")
    return RECIPES[args.recipe](args)


def overlong_length(args: Any) -> int:
    """The number of tokens from which on the overlong penalty is largest."""
    length = args.overlong_max_length or args.max_completion_length
    if length is None:
        raise ValueError("the overlong penalty needs overlong_max_length or max_completion_length")
    return int(length)
