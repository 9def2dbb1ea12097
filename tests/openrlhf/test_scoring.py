"""Statistics from OpenRLHF's Actor against plain Hugging Face forwards in float64."""

from contextlib import nullcontext

import pytest
import torch
from forwards import counted_rows
from openrlhf.models import Actor
from openrlhf_scoring import TEMPERATURE, batch, expected, save_models

from credit.adapters.fields import STATISTICS
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
    with torch.no_grad(), counted_rows() as forwards:
        reference = nullcontext(actors[1] if compared else None)
        log_probs, found = statistics.score_tokens(
            actors[0], lambda: reference, sequences, actions, attention, names=STATISTICS
        )
    # This is OpenRLHF's own pass of the policy, and for a KL term it has one of a reference as well.
    rows = 1 if packed else len(sequences)
    assert forwards == ({"policy": rows, "reference": rows} if compared else {"policy": rows})
    paths = models if compared else [models[0], models[0]]
    chosen = actions.bool()
    wanted = expected(paths, sequences, attention)
    assert wanted.keys() == set(STATISTICS)
    for name, values in wanted.items():
        assert (found[name] - values)[chosen].abs().max() < 5e-6, name
    torch.testing.assert_close(log_probs[chosen], found["log_probs"][chosen], rtol=0, atol=5e-6)
    assert (found["deviation"][chosen].max() > 1e-3) == compared
    if not compared:
        assert (found["deviation"] == 0).all()
