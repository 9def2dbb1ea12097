"""Advantages on ranks of data, context, tensor and pipeline parallelism against float64 and the oracle."""

import json
from pathlib import Path

import pytest
import slime_batch
import torch
from ranks import run

import credit

CLOSE = 2e-5
DATA, CONTEXT, TENSOR, PIPELINE = (
    {},
    {"context_parallel_size": 2},
    {"tensor_model_parallel_size": 2},
    {"pipeline_model_parallel_size": 2},
)
SEQUENCE = {"sequence_parallel": True}
ESTIMATORS = {
    "dgpo": {"tau": 0.05},
    "grpo": {},
    "entropy_shaped": {},
    "reinforce_plus_plus": {"kl_coefficient": 0.1},
    "opd": {},
}
LAYOUTS = {
    1: [DATA | {"tied": True}],
    2: [DATA, CONTEXT, TENSOR, TENSOR | SEQUENCE | {"args": {"rollout_temperature": 0.7}}, PIPELINE],
    4: [CONTEXT, TENSOR | SEQUENCE | CONTEXT, TENSOR | SEQUENCE | PIPELINE, CONTEXT | PIPELINE],
}
SLIMES_OWN = {"log_probs": "log_probs", "reference_log_probs": "ref_log_probs"}  # over the padded vocabulary


def score_in(layouts, ranks, out):
    """Yields each layout with the rows of each estimator, by their places in the batch."""
    given = [json.dumps({"estimators": ESTIMATORS} | layout) for layout in layouts]
    run(str(Path(__file__).with_name("slime_rank.py")), ranks, str(out), *given)
    found = [torch.load(out / f"{rank}.pt") for rank in range(ranks)]
    for place, layout in enumerate(layouts):
        parts = [each[place] for each in found]
        whole = {}
        for name in ESTIMATORS:
            whole[name] = {
                row: values for part in parts if part[name] is not None for row, values in part[name].items()
            }
        yield layout, whole


def expect(name, layout, rows, samples):
    """Advantages [N, T]; log-probs are slime's own, and all else from float64."""
    temperature = layout.get("args", {}).get("rollout_temperature", 1.0)
    models = slime_batch.make_models(layout.get("tied", False))
    statistics = list(slime_batch.score(models, samples, temperature))
    for place, each in enumerate(statistics):
        each |= {ours: rows[place][theirs] for ours, theirs in SLIMES_OWN.items()}
    estimator = credit.get(name, **ESTIMATORS[name])
    return slime_batch.expect(estimator, slime_batch.make_rollouts(samples, statistics))


@pytest.mark.parametrize("ranks", LAYOUTS)
def test_advantages_equal_those_of_float64_forwards(tmp_path, ranks):
    samples = slime_batch.make_samples()
    for layout, found in score_in(LAYOUTS[ranks], ranks, tmp_path):
        for name, rows in found.items():
            assert sorted(rows) == list(range(len(samples))), (layout, name)
            expected = expect(name, layout, rows, samples)
            gap = slime_batch.largest_gap(rows, expected, samples)
            assert gap < CLOSE, (layout, name, gap)
