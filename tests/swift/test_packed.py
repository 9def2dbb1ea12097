"""Rows without padding, packed into one: ms-swift asks for flash attention, whose place SDPA takes on a CPU.

transformers keeps packed rows apart in SDPA by their positions, as flash attention does.
"""

import pytest
import torch
from swift.arguments import RLHFArguments
from swift_oracle import largest_gap

import credit

CLOSE = 2e-5
PACKED = {"padding_free": "true", "attn_impl": "sdpa", "beta": 0.04}


@pytest.fixture
def any_attention(monkeypatch):
    """Lets --padding_free pass without flash attention, and does nothing else."""
    monkeypatch.setattr(RLHFArguments, "_check_padding_free", lambda self: None)


@pytest.mark.parametrize(
    "options",
    [{}, {"beta": 0}, {"per_device_train_batch_size": 2, "steps_per_generation": 4, "max_steps": 4}],
)
def test_packed_rows_have_the_credit_of_float64_forwards(any_attention, train, options):
    """ms-swift unpacks up to two rows in another way than more of them."""
    witness = train(credit.DGPO(tau=0.05), **PACKED | options)
    for batch in witness.batches:
        assert all(len(inputs["input_ids"]) == 1 for inputs in batch.inputs)
        assert largest_gap(credit.DGPO(tau=0.05), batch) < CLOSE
    assert witness.metric("credit/deviation_max")[0] == 0.0
    assert witness.metric("credit/weight_std")[1] > 0.1


def test_packed_training_is_padded_training(any_attention, train):
    padded, packed = (train(credit.DGPO(tau=0.05), **PACKED | {"padding_free": p}) for p in ("false", "true"))
    torch.testing.assert_close(packed.weights(), padded.weights(), rtol=0, atol=2e-5)
