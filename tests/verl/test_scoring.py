"""Statistics from verl's real actor worker against plain Hugging Face forwards in float64."""

import pytest
import score_rank
import scored_rows
import torch
from ranks import run
from transformers import AutoModelForCausalLM

LORA_RANK, LORA_ALPHA = 4, 16
FUSED = "actor_rollout_ref.model.use_fused_kernels=True"
FSDP1 = "actor_rollout_ref.actor.strategy=fsdp actor_rollout_ref.ref.strategy=fsdp"
LOGITS = "logits_"  # before a layout whose statistics are taken over logits
# The fused ones come last in a process: verl changes the model's class for them.
LAYOUTS = {
    "packed": "actor_rollout_ref.model.use_remove_padding=True",
    "padded": "actor_rollout_ref.model.use_remove_padding=False",
    "lora": f"actor_rollout_ref.model.lora_rank={LORA_RANK} actor_rollout_ref.model.lora_alpha={LORA_ALPHA}",
    "ulysses": "actor_rollout_ref.actor.ulysses_sequence_parallel_size=2 "
    "actor_rollout_ref.model.override_config.attn_implementation=packed_on_cpu",
    "to_length": " ".join(
        f"actor_rollout_ref.{role}.fsdp_config.pad_to_length=True "
        f"actor_rollout_ref.{role}.fsdp_config.pad_to_length_bucket=16"
        for role in ("actor", "ref")
    ),
    "tied": "actor_rollout_ref.model.path={tied} actor_rollout_ref.model.enable_gradient_checkpointing=True",
    "fused": f"{FUSED} actor_rollout_ref.model.path={{tied}}",
    "fused_padded": f"{FUSED} actor_rollout_ref.model.path={{tied}} "
    "actor_rollout_ref.model.use_remove_padding=False",
    "fsdp1": FSDP1,
    "fsdp1_fused": f"{FSDP1} {FUSED}",
    "half": " ".join(
        f"actor_rollout_ref.{role}.fsdp_config.mixed_precision.param_dtype=bf16" for role in ("actor", "ref")
    ),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The folders of two models: with a head of its own, and with one that is tied to the embeddings."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("own", "tied"):
        scored_rows.save_model(folder / name, tied=name == "tied")
    return folder


def launch(models, out, ranks, layouts):
    """Runs the ranks and gives for each layout the policy's weights and the rows' statistics, in order."""
    lines = [LAYOUTS[name.removeprefix(LOGITS)].format(tied=models / "tied") for name in layouts]
    ways = [f" {score_rank.OVER_LOGITS}" * name.startswith(LOGITS) for name in layouts]
    lines = [line + way for line, way in zip(lines, ways, strict=True)]
    run(score_rank.__file__, ranks, str(models / "own"), str(out), *lines)
    return scored_rows.collect(out, ranks, layouts, len(score_rank.rows()))


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
    ("ranks", "layouts"),
    [
        (1, ["packed", "padded", "lora", "to_length", "tied", "half", "fused", "fused_padded"]),
        (1, ["logits_packed", "logits_padded", "logits_lora"]),
        (2, ["packed", "ulysses", "fsdp1", "fused", "fsdp1_fused"]),
    ],
)
def test_statistics_equal_a_float64_forward(models, tmp_path, ranks, layouts):
    for name, weights, found in launch(models, tmp_path, ranks, layouts):
        path = models / ("tied" if "{tied}" in LAYOUTS[name.removeprefix(LOGITS)] else "own")
        reference = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64)
        policy = with_weights(path, weights)
        largest = 0.0
        for pair, row in zip(score_rank.rows(), found, strict=True):
            # bfloat16 rounds weights and hidden states to 8 bits.
            bound = 0.05 if name == "half" else 5e-6
            ids = torch.cat(pair)
            expected = scored_rows.expected(policy, reference, ids)
            largest = max(largest, scored_rows.compare(row, expected, bound, name))
        assert largest > 1e-3, name  # the perturbed policy does deviate
