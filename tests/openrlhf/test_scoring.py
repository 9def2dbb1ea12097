"""Statistics from OpenRLHF's Actor against plain Hugging Face forwards in float64."""

from contextlib import nullcontext

import pytest
import torch
from forwards import counted_rows
from openrlhf.models import Actor
from openrlhf_scoring import TEMPERATURE, batch, expected, save_models

from credit.adapters.fields import REFERENCE_FIELDS, STATISTICS
from credit.adapters.openrlhf import statistics


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("compared", [True, False])
def test_statistics_equal_a_float64_forward(models, packed, compared):
    actors = []
    for path in models:
        actor = Actor(path, attn_implementation="sdpa", temperature=TEMPERATURE, packing_samples=packed)
        actor.model.float().eval()
        actors.append(actor)
    sequences, actions, attention = batch()
    actors[1].requires_grad_(False)
    names = [name for name in STATISTICS if compared or name not in REFERENCE_FIELDS]
    with torch.no_grad(), counted_rows() as forwards:
        reference = nullcontext(actors[1] if compared else None)
        log_probs, found = statistics.score_tokens(
            actors[0], lambda: reference, sequences, actions, attention, names=names
        )
    # This is OpenRLHF's own pass of the policy, and for a KL term it has one of a reference as well.
    rows = 1 if packed else len(sequences)
    assert forwards == ({"policy": rows, "reference": rows} if compared else {"policy": rows})
    chosen = actions.bool()
    wanted = expected(models, sequences, attention)
    assert wanted.keys() == set(STATISTICS)
    for name in names:
        assert (found[name] - wanted[name])[chosen].abs().max() < 5e-6, name
    torch.testing.assert_close(log_probs[chosen], found["log_probs"][chosen], rtol=0, atol=5e-6)
