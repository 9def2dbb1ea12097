"""Where the tokens of a response lie on the ranks of context parallelism.

A sequence of L tokens is cut into 2 R pieces of ceil(L / 2R) places, and rank r of R has the pieces r and
2R - 1 - r. The place before a token predicts it, so a rank has the tokens that follow its places.
"""

import torch
import torch.distributed
import torch.distributed.nn
from megatron.core import mpu


def find_spans(total_length, response_length):
    """Of this rank's two pieces, the spans of the response whose tokens their places predict."""
    rank, ranks = mpu.get_context_parallel_rank(), mpu.get_context_parallel_world_size()
    size = -(-total_length // (2 * ranks))
    first = total_length - response_length - 1  # the place that predicts the response's first token
    spans = []
    for piece in (rank, 2 * ranks - 1 - rank):
        start = max(piece * size, first)
        end = max(min((piece + 1) * size, total_length - 1), start)
        spans.append((min(start - first, response_length), min(end - first, response_length)))
    return spans


def slice_log_prob_with_cp(log_prob, total_length, response_length):
    assert len(log_prob) == response_length
    if mpu.get_context_parallel_world_size() == 1:
        return log_prob
    parts = [log_prob[start:end] for start, end in find_spans(total_length, response_length)]
    return parts[0] + parts[1] if isinstance(log_prob, list) else torch.cat(parts)


def all_gather_with_cp(tensor, total_length, response_length):
    if mpu.get_context_parallel_world_size() == 1:
        return tensor
    whole, taken = tensor.new_zeros(response_length), 0
    for start, end in find_spans(total_length, response_length):
        whole[start:end] = tensor[taken : taken + end - start]
        taken += end - start
    assert taken == len(tensor)
    whole.requires_grad_()  # slime's can be differentiated, too
    return torch.distributed.nn.all_reduce(whole, group=mpu.get_context_parallel_group())


def slice_with_cp(tokens, pad_value):
    """This rank's two pieces of a sequence, behind which there is padding."""
    rank, ranks = mpu.get_context_parallel_rank(), mpu.get_context_parallel_world_size()
    if ranks == 1:
        return tokens
    size = -(-len(tokens) // (2 * ranks))
    padded = torch.nn.functional.pad(tokens, (0, 2 * ranks * size - len(tokens)), value=pad_value)
    pieces = padded.split(size)
    return torch.cat([pieces[rank], pieces[2 * ranks - 1 - rank]])
