"""Statistics from verl's real actor worker on Megatron against plain Hugging Face forwards in float64.

The engine, its schedules and the worker are verl's and megatron-core's own. Megatron-Bridge and Transformer
Engine need CUDA; megatron_models stands in for them.
"""

from pathlib import Path

import pytest
import score_rank
import scored_rows
import torch
from ranks import run
from transformers import AutoModelForCausalLM

from credit.adapters.hooks import check_functions
from credit.adapters.verl import hooks

OWN = ("log_probs", "entropy")  # of verl, which count the padding of the vocabulary
MODELS = "actor_rollout_ref"
TENSOR, CONTEXT, PIPELINE = (
    f"{MODELS}.actor.megatron.{name}_size=2"
    for name in ("tensor_model_parallel", "context_parallel", "pipeline_model_parallel")
)
PADDED = f"{MODELS}.model.use_remove_padding=False"
WHOLE = f"{MODELS}.actor.megatron.sequence_parallel=False {MODELS}.ref.megatron.sequence_parallel=False"
FIXED = (
    f"{MODELS}.actor.use_dynamic_bsz=False {MODELS}.actor.ppo_micro_batch_size_per_gpu=2 "
    f"{MODELS}.rollout.log_prob_use_dynamic_bsz=False {MODELS}.rollout.log_prob_micro_batch_size_per_gpu=2 "
    f"{MODELS}.ref.log_prob_micro_batch_size_per_gpu=3"  # which is not the policy's
)
CHUNKED = f"{MODELS}.actor.entropy_from_logits_with_chunking=True"
OFFLOADED = f"{MODELS}.ref.megatron.param_offload=True"
LORA = f"{MODELS}.model.lora.rank=4"
ROUNDED = f"+{MODELS}.actor.megatron.override_transformer_config.bf16=True"
LAYOUTS = {
    2: [
        f"{TENSOR} {OFFLOADED}",
        f"{TENSOR} {WHOLE} {PADDED} {FIXED} {CHUNKED}",
        f"{TENSOR} {LORA}",
        f"{CONTEXT}",
        f"{PIPELINE} {OFFLOADED}",
        f"{PIPELINE} {PADDED} {FIXED}",
        f"{PIPELINE} {LORA}",
        f"{TENSOR} {ROUNDED}",
        f"{PIPELINE} {ROUNDED}",
    ],
    4: [f"{TENSOR} {CONTEXT}", f"{TENSOR} {PIPELINE}", f"{CONTEXT} {PIPELINE}", f"{TENSOR}"],
}


def make_models(path, tied):
    """Saves the reference, and gives it and the tuned policy in float64."""
    scored_rows.save_model(path, tied)
    reference = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64)
    tuned = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    score_rank.perturb(tuned.parameters())
    return reference, tuned.double()


def launch(model, out, ranks):
    """Yields each layout, its results by data-parallel rank, for equal models and for others, and all forwards."""
    run(str(Path(__file__).with_name("megatron_rank.py")), ranks, str(model), str(out), *LAYOUTS[ranks])
    found = [torch.load(Path(out) / f"{rank}.pt") for rank in range(ranks)]
    for place, layout in enumerate(LAYOUTS[ranks]):
        own = [part[place] for part in found]
        whole = {rank: results for rank, *results, _ in own if results[0] is not None}
        yield layout, whole, [forwards for *_, forwards in own]


def errors(found, models, policy):
    """The largest error of each statistic; rows are dealt out to the data-parallel ranks in turn."""
    largest = dict.fromkeys(found[0], 0.0)
    for row, pair in enumerate(score_rank.rows()):
        values = found[row % len(found)]
        for name, right in scored_rows.expected(policy, models[0], torch.cat(pair)).items():
            ours = torch.tensor(values[name][row // len(found)], dtype=torch.float64)[:-1]
            largest[name] = max(largest[name], (ours - right).abs().max().item())
    return largest


@pytest.mark.parametrize("ranks", LAYOUTS)
def test_statistics_equal_a_float64_forward(tmp_path, ranks):
    models = make_models(tmp_path / "model", tied=ranks == 4)
    for layout, results, forwards in launch(tmp_path / "model", tmp_path, ranks):
        equal, moved = ([results[rank][place] for rank in sorted(results)] for place in (0, 1))
        for found, policy in ((equal, models[0]), (moved, models[1])):
            for name, error in errors(found, models, policy).items():
                limit = 0.02 if ROUNDED in layout else 5e-6
                assert name in OWN or error < limit, (layout, name, error)
        for name, exact in (("credit_deviation", 0.0), ("credit_extra.kl", 0.0)):
            assert {value for part in equal for row in part[name] for value in row} == {exact}, layout
        assert max(max(row[:-1]) for part in moved for row in part["credit_deviation"]) > 1e-3, layout
        for policy, *reference in forwards:  # with an adapter, both are one model
            assert not reference or reference == [policy], (layout, forwards)


def test_functions_of_megatron_are_as_expected():
    check_functions(hooks.FRAMEWORK, hooks.MEGATRON)
