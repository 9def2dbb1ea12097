"""Statistics of models of which two ranks have a part each, against plain Hugging Face forwards in float64.

With ring attention a rank has a part of the tokens, and with tensor parallelism a part of the weights.
"""

from functools import cache

import openrlhf_split_rank
import pytest
import ranks
import torch
from openrlhf_scoring import TEMPERATURE, batch, expected, save_models
from transformers import AutoModelForCausalLM

from credit.adapters.fields import STATISTICS

RANKS = 2


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def score(models, tmp_path_factory):
    """What each rank found, beside its gradient and the shapes of its weights."""

    @cache
    def run(split):
        out = str(tmp_path_factory.mktemp("scored") / "rank")
        flags = "--model", models[0], "--reference", models[1], "--out", out, f"--{split}", str(RANKS)
        ranks.run(openrlhf_split_rank.__file__, RANKS, *flags)
        return [torch.load(f"{out}{rank}") for rank in range(RANKS)]

    return run


@pytest.mark.parametrize("split", ["ring", "tensor-parallel"])
@pytest.mark.parametrize("last", openrlhf_split_rank.LASTS)
def test_each_rank_has_the_statistics_of_all_tokens(models, score, split, last):
    sequences, actions, attention = batch(last)
    chosen, wanted = actions.bool(), expected(models, sequences, attention)
    assert wanted.keys() == set(STATISTICS)
    for of_rank, _, shapes in score(split):
        (query,) = {shape for name, shape in shapes.items() if "q_proj.weight" in name}
        assert query == ((16, 32) if split == "tensor-parallel" else (32, 32))
        log_probs, found = of_rank[last]["other"]
        for name, values in wanted.items():
            assert (found[name] - values)[chosen].abs().max() < 5e-6, name
        torch.testing.assert_close(log_probs[chosen], found["log_probs"][chosen], rtol=0, atol=5e-6)
        assert found["deviation"][chosen].max() > 1e-3
        assert (of_rank[last]["same"][1]["deviation"] == 0).all()


def test_the_gradient_with_ring_attention_is_that_of_one_model(models, score):
    sequences, actions, attention = batch(6)
    model = AutoModelForCausalLM.from_pretrained(models[0], dtype=torch.float64)
    logits = model(sequences, attention_mask=attention).logits[:, :-1] / TEMPERATURE
    log_probs = logits.log_softmax(-1).gather(-1, sequences[:, 1:, None])[..., 0]
    (log_probs[actions.bool()].sum() / actions.sum()).backward()
    for _, gradient, _ in score("ring"):
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradient[name].double(), parameter.grad, rtol=1e-4, atol=2e-6)
