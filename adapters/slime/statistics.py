"""Token statistics from the hidden states that slime's own passes of reference and policy have.

Both are one module of Megatron's whose weights slime swaps: the reference's pass comes first. Its states
before the head are kept in the host's memory (response tokens x hidden size, divided among the ranks of
sequence parallelism), and the policy's pass computes the statistics of each micro-batch.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import torch
from megatron.core import parallel_state

import credit
from credit.adapters.fields import REFERENCE_FIELDS, compute_by_name
from credit.adapters.memory import CHUNK, count_within, find_budget, tile_bytes

Tensor = torch.Tensor
REFERENCE, POLICY = "ref_", ""  # slime's prefixes of what the passes compute
CHECKED = 64  # tokens of a micro-batch whose log-probs are compared with slime's


class Head(NamedTuple):
    """This rank's part of the vocabulary, of tensor parallelism."""

    weight: Tensor  # [V / ranks, D]
    bias: Tensor | None


class HeadCall(NamedTuple):
    """A call of the model's head."""

    hidden: Tensor  # [T, D], or this rank's part [T / ranks, D] of sequence parallelism
    head: Head


class Kept(NamedTuple):
    """What is kept of the reference's pass over a micro-batch."""

    input_ids: Tensor  # [T]
    rows: Tensor  # [m, D], of this rank's hidden states those that predict tokens of responses


class Scored(NamedTuple):
    """The statistics of a micro-batch's tokens, in the order of its packed rows."""

    ids: Tensor  # [M], the ids that follow in the packed rows
    values: Mapping[str, Tensor]  # [M] by name
    log_probs: Tensor  # of the first ids, over the padded vocabulary as slime's are


class Scorer:
    """Hooks on the model for the pass that begins, and what the passes over a batch have left."""

    def __init__(self, names: Sequence[str], memory_mb: float | None) -> None:
        self.names, self.memory_mb = tuple(names), memory_mb
        self.compares = bool(set(names) & set(REFERENCE_FIELDS))
        self.kept, self.scored = deque[Kept](), list[Scored]()
        self._handles, self._call = list[Any](), list[HeadCall]()
        self._reference: Head | None = None

    def begin(self, args: Any, model: Sequence[Any], prefix: str) -> None:
        """Listens to the pass that slime calls by that prefix; the pass of a teacher is not heard."""
        self._stop()
        if prefix == REFERENCE and self.compares:
            self.kept, self._reference = deque(), None
        elif prefix == POLICY:
            self.scored = []
        else:
            return

        def end_forward(_: Any, positional: Any, named: Mapping[str, Any], output: Any) -> None:
            call, self._call = self._call[-1], []
            if torch.is_grad_enabled():  # slime trains, and nobody has asked for advantages before
                return
            predicts, ids = named["loss_mask"][0].bool(), named["input_ids"][0]
            if prefix == REFERENCE:
                self._keep(call, predicts, ids)
            else:
                self.scored.append(self._score(args, call, predicts, ids))

        for chunk in model:
            head = _find_head(chunk)
            if head is not None:
                self._handles.append(head.register_forward_pre_hook(self._record, with_kwargs=True))
                self._handles.append(chunk.register_forward_hook(end_forward, with_kwargs=True))
        if not self._handles and parallel_state.is_pipeline_last_stage():
            kinds = ", ".join(type(chunk).__name__ for chunk in model)
            raise ValueError(
                f"the model ({kinds}) has no output_layer where Megatron's models have it, so that there are "
                "no hidden states to take token statistics from; take an estimator without them"
            )

    def finish(self) -> list[Scored]:
        """The statistics of the batch's micro-batches; nothing of them is kept here."""
        self._stop()
        scored = self.scored
        self.kept, self.scored, self._reference = deque(), [], None
        return scored

    def _stop(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._call = [], []

    def _record(self, head: Any, positional: Sequence[Tensor], named: Mapping[str, Any]) -> None:
        """A head that is tied to the embeddings gets its weight with each call."""
        weight = named.get("weight", positional[1] if len(positional) > 1 else None)
        hidden = positional[0] if positional else named["input_"]
        # The last call is that of the next token; those before it are of multi-token prediction.
        own = Head(head.weight if weight is None else weight, head.bias)
        self._call.append(HeadCall(hidden[:, 0], own))

    def _keep(self, call: HeadCall, predicts: Tensor, ids: Tensor) -> None:
        if self._reference is None:  # the policy's weights will take its place
            weight, bias = call.head
            self._reference = Head(weight.clone(), None if bias is None else bias.clone())
        self.kept.append(Kept(ids.cpu(), call.hidden[_own_part(predicts, call.hidden)].cpu()))

    def _score(self, args: Any, call: HeadCall, predicts: Tensor, ids: Tensor) -> Scored:
        ours = _gather_sequence(call.hidden, predicts)[predicts]
        theirs, reference = None, None
        if self.compares:
            kept, reference = self._take_kept(ids)
            placed = torch.zeros_like(call.hidden)
            placed[_own_part(predicts, call.hidden)] = kept.rows.to(placed)
            theirs = _gather_sequence(placed, predicts)[predicts]
        following = ids.roll(-1)[predicts]
        _refuse_other_vocabulary(args, following)
        size = count_within(_find_budget(self.memory_mb, ours), tile_bytes(len(call.head.weight)))
        others = repeat(None) if theirs is None else theirs.split(size)
        parts = zip(ours.split(size), others, following.split(size), strict=False)
        found = [
            _compute(args, self.names, call.head, reference, *part, vocab_size=args.vocab_size)
            for part in parts
        ]
        first, head = ours[:CHECKED], call.head
        return Scored(
            following,
            {name: torch.cat([each[name] for each in found]) for name in self.names},
            _compute(args, ("log_probs",), head, None, first, None, following[:CHECKED])["log_probs"],
        )

    def _take_kept(self, ids: Tensor) -> tuple[Kept, Head]:
        """What the reference's pass over the same micro-batch has left; it is not kept any longer."""
        place = len(self.scored)
        if self._reference is None or not self.kept:
            raise RuntimeError(
                f"slime runs the policy over micro-batch {place + 1}, and ran the reference over "
                f"{place} before it; they cannot be compared"
            )
        kept = self.kept.popleft()
        if not torch.equal(kept.input_ids, ids.cpu()):
            raise RuntimeError("slime split the batch into other micro-batches for policy than for reference")
        return kept, self._reference


def _find_budget(setting: float | None, hidden: Tensor) -> float:
    """Megabytes for tiles of logits: the least of ranks that share the vocabulary, which slice together."""
    budget = find_budget(setting, hidden.device)
    group = parallel_state.get_tensor_model_parallel_group()
    if setting is not None or group.size() == 1:
        return budget
    least = torch.tensor(budget, device=hidden.device)
    torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN, group)
    return float(least)


def _compute(
    args: Any,
    names: Sequence[str],
    ours: Head,
    theirs: Head | None,
    hidden: Tensor,
    reference: Tensor | None,
    ids: Tensor,
    vocab_size: int | None = None,
) -> dict[str, Tensor]:
    """The statistics [m] of those names, over the vocabulary without its padding if its size is given."""
    group = parallel_state.get_tensor_model_parallel_group()
    weight, bias = (None, None) if theirs is None else (theirs.weight, theirs.bias)
    return compute_by_name(
        credit.token_statistics_from_hidden,
        names,
        *(hidden, ours.weight, reference, weight, ids),
        temperature=args.rollout_temperature,
        policy_bias=ours.bias,
        reference_bias=bias,
        vocab_size=vocab_size,
        process_group=group if group.size() > 1 else None,
        chunk=CHUNK,
    )


def _refuse_other_vocabulary(args: Any, ids: Tensor) -> None:
    """slime takes the tokenizer's number of tokens, without added ones, where the model's config has none."""
    if len(ids) and int(ids.max()) >= args.vocab_size:
        raise ValueError(
            f"a response has the id {int(ids.max())}, and the vocabulary {args.vocab_size} tokens by slime's "
            "arguments; set --vocab-size to the model's number of tokens"
        )


def _find_head(chunk: Any) -> Any:
    """The head of the model within what Megatron wraps around it; None: this stage has none."""
    while hasattr(chunk, "module"):
        chunk = chunk.module
    model = getattr(chunk, "language_model", chunk)
    return model.output_layer if getattr(model, "post_process", False) else None


def _own_part(predicts: Tensor, hidden: Tensor) -> Tensor:
    """Of places [T] those of this rank's hidden states [T / ranks, D] of sequence parallelism."""
    if len(hidden) == len(predicts):
        return predicts
    return predicts.view(-1, len(hidden))[parallel_state.get_tensor_model_parallel_rank()]


def _gather_sequence(hidden: Tensor, predicts: Tensor) -> Tensor:
    """The hidden states [T, D] of the parts [T / ranks, D] that the ranks of sequence parallelism have."""
    if len(hidden) == len(predicts):
        return hidden
    whole = hidden.new_empty((len(predicts), hidden.shape[1]))
    group = parallel_state.get_tensor_model_parallel_group()
    torch.distributed.all_gather_into_tensor(whole, hidden.contiguous(), group=group)
    return whole
