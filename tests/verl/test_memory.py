"""The setting for the memory of tiles of logits reaches verl's workers, and keeps tiles to its size."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from credit.adapters.heads import Head
from credit.adapters.verl import checks, layout, settings, sources


def parse(**given):
    return settings.parse_settings({"adv_estimator": "credit_dgpo", "credit": given})


def test_the_setting_is_a_positive_number():
    assert parse().statistics_memory_mb is None
    assert parse(statistics_memory_mb=64).statistics_memory_mb == 64.0
    for value in (0, -1, float("inf"), float("nan"), "much"):
        with pytest.raises(ValueError, match=f"statistics_memory_mb={value}; expected a positive number"):
            parse(statistics_memory_mb=value)


def test_the_setting_is_refused_where_no_logits_are_compared():
    with pytest.raises(ValueError, match="statistics_memory_mb=64 has no effect"):
        parse(statistics_memory_mb=64, divergence="binary")
    with pytest.raises(ValueError, match="statistics_memory_mb=64 has no effect"):
        settings.parse_settings({"adv_estimator": "credit_grpo", "credit": {"statistics_memory_mb": 64}})


class LargestAllocation(TorchDispatchMode):
    """The bytes of the largest tensor that an operation returned."""

    largest = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        if isinstance(result, torch.Tensor):
            self.largest = max(self.largest, result.numel() * result.itemsize)
        return result


@pytest.mark.parametrize("budget_mb", [0.1, 1.0])
def test_tiles_of_both_models_fit_the_budget(budget_mb):
    torch.manual_seed(0)
    tokens, size, hidden = 500, 6000, torch.randn(1, 500, 1)
    head = Head(torch.randn(size, 1), None, 1.0, None)
    placed = layout.Tokens(torch.randint(size, (tokens,)), torch.full((tokens,), 0.7), None, 0)
    with LargestAllocation() as seen:
        found = layout.compute(("deviation",), placed, (hidden, hidden + 0.1), (head, head), budget_mb)
    assert budget_mb * 1e6 / 4 < seen.largest <= budget_mb * 1e6 / 2
    whole = layout.compute(("deviation",), placed, (hidden, hidden + 0.1), (head, head), 256)
    assert torch.allclose(found["deviation"], whole["deviation"], rtol=1e-6, atol=0)


def test_the_setting_is_refused_where_verls_passes_give_the_statistics(configured):
    given = ["algorithm.adv_estimator=credit_top_entropy", "+algorithm.credit.statistics_memory_mb=64"]
    with pytest.raises(ValueError, match="64 has no effect with credit_top_entropy, which reads what verl's"):
        checks.check_config(configured(*given), sources.find_v1_mode("sync", computes_statistics=False))
    found = checks.check_config(configured(*given), sources.find_v1_mode("sync", computes_statistics=True))
    assert (found.source, found.statistics_memory_mb) == ("workers", 64.0)
