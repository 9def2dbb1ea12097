"""How many rows language models of transformers score without gradient, of whatever framework runs them."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook
from transformers import PreTrainedModel


@contextmanager
def counted_rows() -> Iterator[Counter]:
    """Counts within it the rows of forwards without gradient; those of sampling, which have a cache, are left out.

    A model with a weight that trains is the policy; PEFT lets none train while an adapter is off.
    """
    found = Counter()

    def count(module: Any, arguments: Any, named: dict[str, Any], output: Any) -> None:
        scores = not torch.is_grad_enabled() and named.get("past_key_values") is None
        # What is before the head: PEFT passes the forward of the whole model by.
        if scores and isinstance(module, PreTrainedModel) and module.base_model is module:
            trains = any(weight.requires_grad for weight in module.parameters())
            ids = named["input_ids"] if "input_ids" in named else arguments[0]
            found["policy" if trains else "reference"] += len(ids)

    handle = register_module_forward_hook(count, with_kwargs=True)
    try:
        yield found
    finally:
        handle.remove()
