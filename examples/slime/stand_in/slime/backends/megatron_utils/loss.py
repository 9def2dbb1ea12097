"""Log-probs, advantages and the policy loss."""

import torch
from megatron.core import mpu
from megatron.core.tensor_parallel import gather_from_tensor_model_parallel_region

from slime.backends.megatron_utils.cp_utils import slice_log_prob_with_cp, slice_with_cp
from slime.utils.misc import load_function


def get_log_probs_and_entropy(
    logits,
    *,
    args,
    unconcat_tokens,
    total_lengths,
    response_lengths,
    with_entropy=False,
    non_loss_data=True,
    top_p_token_ids=None,
    top_p_token_offsets=None,
):
    """Of each sample's response the log-probs and the entropy, over the padded vocabulary."""
    whole = gather_from_tensor_model_parallel_region(logits[0] / args.rollout_temperature)
    log_probs = whole.log_softmax(dim=-1)
    found = {"log_probs": [], **({"entropy": []} if with_entropy else {})}
    start = 0
    for tokens, total, response in zip(unconcat_tokens, total_lengths, response_lengths, strict=True):
        predicts = torch.zeros(total, dtype=torch.bool)
        predicts[total - response - 1 : total - 1] = True
        here = slice_with_cp(predicts, False)
        rows = log_probs[start : start + len(here)][here]
        start += len(here)
        ids = slice_log_prob_with_cp(tokens[total - response :], total, response)
        found["log_probs"].append(rows.gather(1, ids[:, None])[:, 0])
        if with_entropy:
            found["entropy"].append(-(rows.exp() * rows).sum(dim=1))
    return torch.empty(0), found


def compute_advantages_and_returns(args, rollout_data):
    """Sets the advantages on the last stage: slime's own, or those of a function that an option names."""
    if not mpu.is_pipeline_last_stage():
        return
    shapes = rollout_data.get("log_probs") or rollout_data["rollout_log_probs"]
    rollout_data["kl"] = [torch.zeros_like(each) for each in shapes]
    if args.custom_advantage_function_path is not None:
        load_function(args.custom_advantage_function_path)(args, rollout_data)
        return
    assert args.advantage_estimator == "grpo"  # whose rewards are normalized already
    pairs = zip(rollout_data["kl"], rollout_data["rewards"], strict=True)
    rollout_data["advantages"] = [torch.ones_like(kl) * reward for kl, reward in pairs]
    rollout_data["returns"] = rollout_data["advantages"]


def loss_function(args, batch, num_microbatches, step_global_batch_size, logits):
    """The clipped policy loss, its mean over each rollout's tokens and then over the rollouts."""
    fields = ("unconcat_tokens", "total_lengths", "response_lengths")
    _, found = get_log_probs_and_entropy(logits, args=args, **{name: batch[name] for name in fields})
    new = found["log_probs"]
    old = batch["log_probs"] or [each.detach() for each in new]
    loss = logits.sum() * 0.0
    for place, advantages in enumerate(batch["advantages"]):
        total, response = batch["total_lengths"][place], batch["response_lengths"][place]
        mask = slice_log_prob_with_cp(batch["loss_masks"][place], total, response)
        ratio = (new[place] - old[place]).exp()
        clipped = ratio.clamp(1 - args.eps_clip, 1 + args.eps_clip_high)
        losses = torch.maximum(-ratio * advantages, -clipped * advantages)
        loss = loss + (losses * mask).sum() / batch["rollout_mask_sums"][place].clamp(min=1)
    scale = num_microbatches / step_global_batch_size
    loss = loss * scale * mpu.get_data_parallel_world_size(with_context_parallel=True)
    return (
        loss,
        torch.tensor(1),
        {"keys": ["loss"], "values": torch.stack([torch.tensor(0.0), loss.detach()])},
    )
