"""A pass over the batch without gradients."""

from functools import partial

import torch
from megatron.core import mpu
from megatron.core.pipeline_parallel import get_forward_backward_func

from slime.backends.megatron_utils.data import get_batch
from slime.utils.misc import load_function

KEYS = ("tokens", "loss_masks", "multimodal_train_inputs", "total_lengths", "response_lengths")


@torch.no_grad()
def forward_only(
    f,
    args,
    model,
    data_iterator,
    num_microbatches,
    store_prefix="",
    use_rollout_top_p_replay=False,
):
    """What `f` makes of the logits of each micro-batch, in the order of the samples; on the last stage."""
    for iterator in data_iterator:
        iterator.reset()

    def forward_step(iterator, model):
        batch = get_batch(iterator, KEYS, args.data_pad_size_multiplier, args.allgather_cp)
        logits = model(
            input_ids=batch["tokens"],
            position_ids=None,
            attention_mask=None,
            labels=None,
            packed_seq_params=batch["packed_seq_params"],
            loss_mask=batch["full_loss_masks"],
        )
        fields = ("unconcat_tokens", "total_lengths", "response_lengths")
        options = {name: batch[name] for name in fields}
        return logits, partial(f, args=args, with_entropy=args.use_rollout_entropy, **options)

    for each in model:
        each.eval()
    if args.custom_megatron_before_log_prob_hook_path:
        load_function(args.custom_megatron_before_log_prob_hook_path)(args, model, store_prefix)
    found = []
    for count in num_microbatches:
        found += get_forward_backward_func()(
            forward_step_func=forward_step,
            data_iterator=data_iterator,
            model=model,
            num_microbatches=count,
            seq_length=args.seq_length,
            micro_batch_size=args.micro_batch_size,
            forward_only=True,
        )
    for each in model:
        each.train()
    if not mpu.is_pipeline_last_stage():
        return {}
    order = sum(data_iterator[0].micro_batch_indices, [])
    whole = {}
    for key in found[0]:
        values = [value for part in found for value in part[key]]
        whole[store_prefix + key] = [
            value for _, value in sorted(zip(order, values, strict=True), key=lambda pair: pair[0])
        ]
    return whole
