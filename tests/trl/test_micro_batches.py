"""The rows of a scoring forward: what a budget holds, and the same number of forwards everywhere."""

from types import SimpleNamespace

import torch
from transformers import Qwen2Config

from credit.adapters.memory import CHUNK
from credit.adapters.trl.micro_batches import micro_batches, rows_per_forward

QWEN_05B = Qwen2Config(vocab_size=151_936, hidden_size=896, intermediate_size=4864)


def test_a_budget_holds_rows_in_proportion():
    row = 1024 * (2 * (8 * 896 + 3 * 4864) + 2 * 4 * CHUNK) / 1e6  # megabytes in bfloat16
    assert rows_per_forward(QWEN_05B, 1024, 2, 2.5 * row) == 2
    assert rows_per_forward(QWEN_05B, 512, 2, 2.5 * row) == 5
    assert rows_per_forward(QWEN_05B, 1024, 2, 0.1 * row) == 1
    assert rows_per_forward(QWEN_05B, 1024, 4, 2.5 * row) == 1


def test_a_small_vocabulary_and_layers_of_several_sizes_are_counted():
    small = SimpleNamespace(vocab_size=100, hidden_size=8, intermediate_size=[16, 32])
    assert rows_per_forward(small, 10, 4, (4 * (64 + 96) + 800) * 10 * 3 / 1e6) == 3
    unnamed = SimpleNamespace(vocab_size=100, hidden_size=8)
    assert rows_per_forward(unnamed, 10, 4, (4 * (64 + 96) + 800) * 10 * 3 / 1e6) == 3


def trainer(budget_mb, of_other_ranks=()):
    def gather(own):
        return torch.cat([own, torch.tensor(of_other_ranks, dtype=own.dtype)])

    config = SimpleNamespace(get_text_config=lambda: QWEN_05B)
    accelerator = SimpleNamespace(unwrap_model=lambda model: model, device=torch.device("cpu"), gather=gather)
    return SimpleNamespace(
        model=SimpleNamespace(config=config, dtype=torch.float32),
        accelerator=accelerator,
        args=SimpleNamespace(statistics_memory_mb=budget_mb),
    )


MASK = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0]])


def test_rows_of_similar_length_go_together_and_none_is_lost():
    batches = micro_batches(trainer(1e-6), 3, MASK)
    assert [batch.width for batch in batches] == [1, 1, 2, 3, 4]
    assert [batch.rows.tolist() for batch in batches] == [[2], [1], [3], [4], [0]]
    (whole,) = micro_batches(trainer(1e6), 3, MASK)
    assert whole.width == 4
    assert sorted(whole.rows.tolist()) == [0, 1, 2, 3, 4]


def test_a_rank_with_room_makes_as_many_forwards_as_the_others():
    batches = micro_batches(trainer(1e6, of_other_ranks=(2, 3)), 3, MASK)
    assert [len(batch.rows) for batch in batches] == [2, 2, 1]
