"""From the samples of all ranks to the rollouts that an estimator takes, and back to this rank's lists."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from megatron.core import parallel_state
from torch.nn.utils.rnn import pad_sequence

import credit
from credit.adapters.slime import layout, sources
from credit.adapters.slime.groups import find_groups, read_reward, refuse_several_rewards
from credit.adapters.slime.sources import ENTROPY, LOG_PROBS
from credit.adapters.slime.statistics import Scored
from credit.fields import replace_arrays

Tensor = torch.Tensor
OTHERS = {"rollout_log_probs": "rollout_log_probs", "extra.teacher_log_probs": "teacher_log_probs"}
"""Arrays that slime hands on, and what its batches call them."""
IDS = "extra.token_ids"


class Whole(NamedTuple):
    """The samples of all ranks of data parallelism, in the order in which they were sampled."""

    rollouts: credit.Rollouts  # on the host
    last: list[int]  # [N], the row of the last sample of each row's rollout
    places: list[int]  # [n], the rows of this rank's samples
    tokens: list[Tensor]  # [N], prompts and responses; none unless they are recorded
    lengths: list[int]  # [N], of the responses


def gather(
    args: Any,
    data: Mapping[str, Any],
    estimator: credit.Estimator,
    scored: Sequence[Scored],
    progress: float | None,
    records: bool,
) -> Whole:
    """The whole batch, on every rank; the data are slime's `rollout_data` of this one.

    With `records` it has what the views of credit.lens show, as far as slime or the passes have it.
    """
    fields = _read_fields(args, data, estimator, scored, records)
    count = len(data["tokens"])
    own = {
        "index": list(data.get("sample_indices") or [None] * count),
        "place": list(data.get("partition") or [0] * count),  # which slime 0.3.1 keeps to itself
        "reward": [read_reward(reward) for reward in data["rewards"]],
        "session": list(data["rollout_ids"]),
        "prompt": [
            _digest_prompt(*row) for row in zip(data["tokens"], data["response_lengths"], strict=True)
        ],
        "mask": [mask.bool().cpu() for mask in data["loss_masks"]],
        **{name: [row.cpu() for row in rows] for name, rows in fields.items()},
    }
    if records:
        own["tokens"] = [tokens.cpu() for tokens in data["tokens"]]
    rows, places = _gather_rows(own)
    refuse_several_rewards(rows["session"], rows["reward"])
    groups = find_groups(rows["index"], rows["session"], rows["prompt"], args.n_samples_per_prompt)
    rollouts = credit.Rollouts(
        rewards=torch.tensor(rows["reward"], dtype=torch.float64),
        groups=torch.unique(torch.tensor(groups), return_inverse=True)[1],
        mask=pad_sequence(rows["mask"], batch_first=True),
        progress=None if progress is None else torch.tensor(progress),
    )
    rollouts = replace_arrays(rollouts, {name: pad_sequence(rows[name], batch_first=True) for name in fields})
    if "turns" in estimator.required_fields:
        rollouts = rollouts._replace(turns=credit.tokens.turns(rollouts.mask))
    last = {session: row for row, session in enumerate(rows["session"])}
    return Whole(
        rollouts,
        [last[session] for session in rows["session"]],
        places,
        rows.get("tokens", []),
        [len(mask) for mask in rows["mask"]],
    )


def spread(data: Mapping[str, Any], places: Sequence[int], values: Tensor) -> list[Tensor]:
    """This rank's pieces of its samples' responses, of the values [N, T] of the whole batch."""
    device = data["loss_masks"][0].device
    lengths = data["response_lengths"]
    rows = [values[place, :length] for place, length in zip(places, lengths, strict=True)]
    return [piece.to(device, torch.float32) for piece in layout.cut(data, rows)]


def _read_fields(
    args: Any,
    data: Mapping[str, Any],
    estimator: credit.Estimator,
    scored: Sequence[Scored],
    records: bool,
) -> dict[str, list[Tensor]]:
    """The optional fields of this rank's whole responses [R] by name."""
    needed, found = estimator.required_fields, dict[str, list[Tensor]]()
    for name, theirs in (LOG_PROBS | OTHERS).items():
        if name in needed or (records and name in LOG_PROBS and data.get(theirs)):
            found[name] = layout.join(data, _require(data, name, theirs))
    names = sources.list_scored(estimator, args)
    if names:
        computed = _place_scored(data, estimator, scored)
        found |= {name: computed[name] for name in names}
    elif ENTROPY in needed:
        largest = torch.tensor(float(args.vocab_size)).log().item()
        rows = layout.join(data, _require(data, ENTROPY, "entropy"))
        found[ENTROPY] = [(row / largest).clamp(0.0, 1.0) for row in rows]
    if IDS in needed:
        found[IDS] = layout.read_ids(data)
    return found


def _place_scored(
    data: Mapping[str, Any], estimator: credit.Estimator, scored: Sequence[Scored]
) -> dict[str, list[Tensor]]:
    if not scored or "log_probs" not in data:
        raise RuntimeError(
            f"{estimator.name} needs token statistics, and no pass of the policy has left any: either "
            f"{sources.HOOK} is another function than credit's, or slime skipped the pass; {sources.WAY_OUT}"
        )
    return layout.place(data, scored)


def _require(data: Mapping[str, Any], name: str, theirs: str) -> Any:
    found = data.get(theirs)
    if not found:
        raise ValueError(
            f"the estimator needs {name}, and slime's batch has no {theirs}; it has {', '.join(sorted(data))}"
        )
    return found


def _digest_prompt(tokens: Tensor, response_length: int) -> str:
    prompt = tokens[: len(tokens) - response_length].cpu().numpy()
    return hashlib.sha1(prompt.tobytes(), usedforsecurity=False).hexdigest()


def _gather_rows(own: dict[str, list[Any]]) -> tuple[dict[str, list[Any]], list[int]]:
    """The lists of all ranks of data parallelism by name, in the samples' order, and this rank's rows."""
    group = parallel_state.get_data_parallel_group_gloo(with_context_parallel=False)
    parts: list[Any] = [None] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(parts, own, group=group)
    sizes = [len(part["place"]) for part in parts]
    before = sum(sizes[: torch.distributed.get_rank(group)])
    joined = {name: [value for part in parts for value in part[name]] for name in own}

    def key(row: int) -> tuple[int, int]:
        return joined["index"][row] or 0, joined["place"][row]

    order = sorted(range(sum(sizes)), key=key)
    row_of = {given: row for row, given in enumerate(order)}
    rows = {name: [values[given] for given in order] for name, values in joined.items()}
    return rows, [row_of[before + place] for place in range(len(own["place"]))]
