"""Token statistics from the logits that Megatron engines have of policy and reference.

Each rank has the logits of its part of the vocabulary, which is padded, for its part of the sequences.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from megatron.core import parallel_state
from verl.utils import tensordict_utils as tu

import credit
from credit.adapters.fields import REFERENCE_FIELDS, compute_by_name
from credit.adapters.hooks import check_functions
from credit.adapters.verl import hooks
from credit.adapters.verl.logits_hook import KEY, pass_logits, zero_loss

check_functions(hooks.FRAMEWORK, hooks.MEGATRON)

from verl.models.mcore.util import preprocess_bshd_engine, preprocess_thd_engine  # noqa: E402
from verl.utils.megatron_utils import unwrap_model  # noqa: E402

from credit.adapters.verl import megatron_reference  # noqa: E402

Tensor = torch.Tensor


@contextmanager
def collect_statistics(actor: Any, reference: Any, data: Any, fields: Sequence[str]) -> Iterator[None]:
    """As `statistics.collect_statistics`.

    The reference's forward runs within the policy's, or before it where the layers lie in several stages.
    """
    find: Callable[[Any], Tensor] | None = None
    if set(fields) & set(REFERENCE_FIELDS):
        if parallel_state.get_pipeline_model_parallel_world_size() > 1:
            find = megatron_reference.run_before(actor, reference, data)
        else:
            find = partial(megatron_reference.run_within, actor, reference)
    with (
        pass_logits(actor, data, _make_scorer(actor.engine, find, fields)),
        nullcontext() if reference is None else reference.engine.eval_mode(),
    ):
        yield


def _make_scorer(
    engine: Any, find_reference_logits: Callable[[Any], Tensor] | None, fields: Sequence[str]
) -> Callable[..., Any]:
    vocabulary = _describe_vocabulary(engine)

    def score(*, data: Any, student_logits: Tensor | None = None, data_format: str = "", **_: Any) -> Any:
        if student_logits is None:  # the engine calls a second time, for the loss
            return zero_loss(data)
        other = find_reference_logits(data) if find_reference_logits else None
        next_ids = _lay_out_next_ids(engine, data, data_format)
        arrays = (student_logits, other, next_ids)
        found = compute_by_name(credit.token_statistics, fields, *arrays, **vocabulary)
        return {KEY + name: array for name, array in found.items()}

    return score


def _describe_vocabulary(engine: Any) -> dict[str, Any]:
    """The number of tokens, without Megatron's padding, and the ranks that share them."""
    size = engine.model_config.hf_config.get_text_config().vocab_size
    group = parallel_state.get_tensor_model_parallel_group()
    return {"vocab_size": size, "process_group": group if group.size() > 1 else None}


def _lay_out_next_ids(engine: Any, data: Any, data_format: str) -> Tensor:
    """The ids of the next tokens in the layout of the logits, this rank's part of each sequence."""
    model = unwrap_model(engine.module[0])
    if data_format == "thd":
        lay_out, options = preprocess_thd_engine, {"cp_layout": engine._get_context_parallel_layout(model)}
    else:
        length = tu.get_non_tensor_data(data, key="forced_max_seqlen", default=None)
        lay_out, options = preprocess_bshd_engine, {"forced_max_seqlen": length}
    fp8 = model.config.fp8 in ("e4m3", "hybrid")
    return lay_out(data["input_ids"], need_roll=True, use_fp8_padding=fp8, **options)[0]
