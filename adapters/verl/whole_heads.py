"""The heads of verl's FSDP engines: which of them are plain, and their weights gathered from all ranks."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch.distributed.fsdp import FSDPModule

from credit.adapters.heads import Head, find_base, find_head


def find_model(engine: Any) -> Any:
    """The model of transformers within what FSDP 1 and PEFT put around it; FSDP 2 puts nothing."""
    module = engine.module
    return find_base(getattr(module, "_fsdp_wrapped_module", module))


@contextmanager
def whole_heads(policy: Any, reference: Any, compares: bool) -> Iterator[tuple[Head, Head | None]]:
    """The heads of two engines within the forwards of both; without a reference the policy's, adapter off.

    The second is None if nothing is compared.

    A unit of FSDP's own is whole only while the lm_head runs. Every other parameter of a head is whole
    within its model's forward.
    """
    with ExitStack() as stack:
        for engine in (policy, reference):
            if engine is not None and is_own_unit(engine):
                unit = find_model(engine).get_output_embeddings()
                unit.unshard()
                stack.callback(unit.reshard)
        ours, theirs = find_plain_head(policy, gathered=True), None
        if reference is not None:
            theirs = find_plain_head(reference, gathered=True)
        elif compares:
            with policy.disable_adapter():
                theirs = find_plain_head(policy, gathered=True)
        yield ours, theirs


def is_own_unit(engine: Any) -> bool:
    """Whether FSDP 2 gathers the lm_head by itself, as verl has it unless it is tied to the embeddings."""
    return isinstance(find_model(engine).get_output_embeddings(), FSDPModule)


def find_plain_head(engine: Any, gathered: bool = False) -> Head:
    """The head, whose weight may be FSDP's shard unless it is `gathered`.

    Raises:
        ValueError: logits are not hidden states times a plain weight that FSDP gathers.
    """
    head = find_head(find_model(engine))
    mesh = getattr(head.weight, "device_mesh", None)  # of a DTensor
    if mesh is not None and (gathered or mesh != engine.device_mesh):
        raise ValueError(
            f"the model's lm_head is a DTensor on {mesh}, which FSDP does not gather for a forward; token "
            "statistics are computed from whole heads: leave tensor parallelism out"
        )
    return head
