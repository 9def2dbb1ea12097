"""Advantages per token for tinker-cookbook from an estimator of credit, instead of one number per trajectory.

In `tinker_cookbook.rl.train`, after the line that assembles the data:

    data_D, metadata_D = assemble_training_data(trajectory_groups_P, advantages_P)
    metrics |= await assign_credit(data_D, metadata_D, trajectory_groups_P, reference_client, estimator)

The losses importance_sampling, ppo and cispo take these advantages as they are. tinker gives log-probs of
tokens, never those of the whole vocabulary. So the deviation is bounded (sampled_log_probs.py), and the
entropy is not known.
"""

import asyncio
from typing import Any

import numpy as np
import tinker
from sampled_log_probs import BoundedDeviation, Response, describe, make_rollouts
from tinker_cookbook.rl.types import TrajectoryGroup

import credit

# As in tinker-cookbook, A_i is the reward less the mean of its group, which the weights then spread.
DEFAULT = BoundedDeviation(tau=0.1, base="dr_grpo")


async def assign_credit(
    data_D: list[tinker.Datum],
    metadata_D: list[dict[str, int]],
    trajectory_groups_P: list[TrajectoryGroup],
    reference: tinker.SamplingClient,
    estimator: credit.Estimator = DEFAULT,
    policy: tinker.SamplingClient | None = None,
    top_k: int = 0,
) -> dict[str, float]:
    """Replaces the advantages in `data_D` and returns metrics.

    With `top_k` the policy, which must be the client that sampled, is asked for its likeliest tokens at each
    position, and the reference for the same tokens: closer bounds for one more request per datum.
    """
    sequences = [_join_sequence(datum) for datum in data_D]
    if top_k and policy is None:
        raise ValueError(f"top_k is {top_k}, so the client that sampled is needed: pass policy")
    if top_k:
        tops = await asyncio.gather(*(_score_top_k(policy, reference, each, top_k) for each in sequences))
        reference_log_probs = [log_q[:, 0] for _, log_q in tops]
    else:
        tops = [None] * len(data_D)
        found = await asyncio.gather(*(reference.compute_logprobs(each) for each in sequences))
        reference_log_probs = [np.array(each[1:], float) for each in found]
    responses = [
        Response(_read(datum, "mask") > 0, _read(datum, "logprobs"), reference_log_prob, top)
        for datum, reference_log_prob, top in zip(data_D, reference_log_probs, tops, strict=True)
    ]
    return replace_advantages(data_D, metadata_D, trajectory_groups_P, responses, estimator)


def replace_advantages(
    data_D: list[tinker.Datum],
    metadata_D: list[dict[str, int]],
    trajectory_groups_P: list[TrajectoryGroup],
    responses: list[Response],
    estimator: credit.Estimator,
) -> dict[str, float]:
    """Writes the advantages of the trajectories, of which a datum is the whole or a part, into the datums."""
    places = [
        (group, row)
        for group, each in enumerate(trajectory_groups_P)
        for row in range(len(each.trajectories_G))
    ]
    parts: dict[tuple[int, int], list[int]] = {place: [] for place in places}
    for index, where in enumerate(metadata_D):
        parts[where["group_idx"], where["traj_idx"]].append(index)
    rollouts = make_rollouts(
        [reward for each in trajectory_groups_P for reward in each.get_total_rewards()],
        [group for group, _ in places],
        [_join_responses([responses[index] for index in parts[place]]) for place in places],
    )
    result = estimator(rollouts)
    for place, advantages in zip(places, result.advantages, strict=True):
        start = 0
        for index in parts[place]:
            end = start + len(responses[index].mask)
            values = advantages[start:end].astype(np.float32)
            data_D[index].loss_fn_inputs["advantages"] = tinker.TensorData.from_numpy(values)
            start = end
    return describe(rollouts, result, estimator)


async def _score_top_k(
    policy: tinker.SamplingClient, reference: tinker.SamplingClient, sequence: tinker.ModelInput, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """log p and log q [T, 1 + k] of each token but the first, and of the k likeliest in its place."""
    once = tinker.SamplingParams(max_tokens=1, temperature=1.0)
    answer = await policy.sample(sequence, 1, once, include_prompt_logprobs=True, topk_prompt_logprobs=k)
    sampled = np.array(sequence.to_ints()[1:])
    likely = answer.topk_prompt_logprobs_np
    ids = np.concatenate([sampled[:, None], likely.token_ids[1:]], axis=1).astype(np.int64)
    log_p = np.concatenate([answer.prompt_logprobs_np[1:, None], likely.logprobs[1:]], axis=1).astype(float)
    # A place without a token, or with the sampled one again, is not asked for.
    absent = np.concatenate(
        [np.zeros((len(ids), 1), bool), (ids[:, 1:] == sampled[:, None]) | (log_p[:, 1:] < -9999)], axis=1
    )
    asked = tinker.TensorData.from_numpy(np.where(absent, -1, ids))
    answer = await reference.sample(sequence, 1, once, target_prompt_logprobs=asked)
    log_q = answer.target_prompt_logprobs.to_numpy().reshape(ids.shape).astype(float)
    return tuple(np.where(absent, -np.inf, values) for values in (log_p, log_q))


def _join_sequence(datum: tinker.Datum) -> tinker.ModelInput:
    """The tokens of a datum before they were shifted: its input and the last target."""
    return datum.model_input.append_int(int(_read(datum, "target_tokens")[-1]))


def _join_responses(parts: list[Response]) -> Response:
    """A trajectory of several datums, or of none, as one response."""
    if not parts:
        return Response([], [], [])
    fields = [np.concatenate(each) for each in zip(*(part[:3] for part in parts), strict=True)]
    tops = [part.top for part in parts if part.top is not None]
    return Response(*fields, tuple(map(np.concatenate, zip(*tops, strict=True))) if tops else None)


def _read(datum: tinker.Datum, name: str) -> Any:
    return datum.loss_fn_inputs[name].to_numpy()
