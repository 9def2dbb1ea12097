"""Statistics from verl's real actor worker against plain Hugging Face forwards in float64."""

from pathlib import Path

import pytest
import score_oracle
import score_rank
import torch
from ranks import run
from transformers import AutoModelForCausalLM

LORA_RANK, LORA_ALPHA = 4, 16
LAYOUTS = {
    "packed": "actor_rollout_ref.model.use_remove_padding=True",
    "padded": "actor_rollout_ref.model.use_remove_padding=False",
    "lora": f"actor_rollout_ref.model.lora_rank={LORA_RANK} actor_rollout_ref.model.lora_alpha={LORA_ALPHA}",
    "ulysses": "actor_rollout_ref.actor.ulysses_sequence_parallel_size=2 "
    "actor_rollout_ref.model.override_config.attn_implementation=packed_on_cpu",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    score_oracle.save_model(path)
    return path


def launch(model, out, ranks, layouts):
    """Runs the ranks and gives for each layout the policy's weights and the rows' statistics, in order."""
    run(score_rank.__file__, ranks, str(model), str(out), *(LAYOUTS[name] for name in layouts))
    found = [torch.load(Path(out) / f"{rank}.pt") for rank in range(ranks)]
    for place, name in enumerate(layouts):
        parts = [part[place][1] for part in found]
        parts = [part for part in parts if part["entropy"]]  # ranks that share sequences return them once
        rows = range(len(score_rank.rows()))
        each = [(parts[row % len(parts)], row // len(parts)) for row in rows]
        yield name, found[0][place][0], [{k: v[place] for k, v in part.items()} for part, place in each]


def with_weights(path, weights):
    """The Hugging Face model in float64 with these weights, LoRA's merged."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64)
    state = model.state_dict()
    for name, weight in weights.items():
        if "lora_B" in name:
            continue
        plain = name.removeprefix("base_model.model.")
        if "lora_A" in name:
            up = weights[name.replace("lora_A", "lora_B")].double()
            state[plain.replace(".lora_A.default", "")] += LORA_ALPHA / LORA_RANK * up @ weight.double()
        else:
            state[plain] = weight.double()
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize(
    ("ranks", "layouts"), [(1, ["packed", "padded", "lora"]), (2, ["packed", "ulysses"])]
)
def test_statistics_equal_a_float64_forward(model, tmp_path, ranks, layouts):
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
    for name, weights, found in launch(model, tmp_path, ranks, layouts):
        policy = with_weights(model, weights)
        largest = 0.0
        for pair, row in zip(score_rank.rows(), found, strict=True):
            for field, values in score_oracle.expected(policy, reference, torch.cat(pair)).items():
                ours = torch.tensor(row[field], dtype=torch.float64)[:-1]
                assert (ours - values).abs().max() < 5e-6, (name, field)
                largest = max(largest, values.max().item() if field == "credit_deviation" else 0.0)
        assert largest > 1e-3, name  # the perturbed policy does deviate
