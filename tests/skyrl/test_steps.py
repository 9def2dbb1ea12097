"""SkyRL's real trainer and FSDP worker, step by step: advantages in its batch against float64 forwards."""

import numpy as np
import pytest
import torch
from skyrl_models import make_models, make_output
from skyrl_oracle import largest_gap, make_rollouts
from torch.distributed.tensor import DTensor

import credit

CLOSE = 2e-5  # of advantages up to 10: float32 forwards against float64
ESTIMATORS = {
    "entropy_shaped": {},
    "gtpo": {},
    "grpo_s": {},
    "reinforce_plus_plus": {"kl_coefficient": 0.1},
    "reinforce_plus_plus_baseline": {},
    "lite_ppo": {},
    "opo": {},
}


def check_steps(run, models, estimator, count=2, **options):
    """The advantages of some steps are the oracle's, and not all 0."""
    found = [run.take() for _ in range(count)]
    for step in found:
        assert largest_gap(estimator, step, models, **options) < CLOSE
        assert step.advantages.abs().max() > 0.1
        assert (step.advantages[~step.mask] == 0).all()
    return found


def test_the_first_step_is_grpo_and_later_ones_are_not(steps, models):
    run, estimator = steps("credit_dgpo", {"tau": 0.05}), credit.DGPO(tau=0.05)
    first, second, third = check_steps(run, models, estimator, 3)
    for name, start in (("deviation_max", 0.0), ("weight_std", 0.0), ("effective_token_fraction", 1.0)):
        assert first.metrics[f"credit/{name}"] == start
        for later in (second, third):
            assert abs(later.metrics[f"credit/{name}"] - start) > 0.05
    for step, differs in ((first, False), (second, True)):
        assert step.forwards == {"policy": 1, "reference": 1}  # a pass each, as SkyRL's own for a KL term
        grpo = credit.GRPO()(make_rollouts(step, models)).advantages
        assert (np.abs(step.advantages.numpy() - grpo).max() > 0.5) == differs


@pytest.mark.parametrize("name", ESTIMATORS)
def test_advantages_are_those_of_float64_forwards(steps, models, name):
    check_steps(steps(f"credit_{name}", ESTIMATORS[name]), models, credit.get(name, **ESTIMATORS[name]))


def test_a_mix_of_estimators(steps, models):
    parts = "[[0.7, grpo], [0.3, {name: dgpo, tau: 0.1}]]"
    mix = credit.Mix(parts=[(0.7, credit.GRPO()), (0.3, credit.DGPO(tau=0.1))])
    check_steps(steps("credit_mix", {"parts": parts}), models, mix)


def test_statistics_are_of_the_temperature_and_of_the_named_reference(steps, models):
    """SkyRL's own reference worker leaves the temperature out; this one has the policy's."""
    options = {
        "generator__sampling_params__temperature": 0.7,
        "trainer__ref__model__path": models / "reference",
    }
    run, estimator = steps("credit_dgpo", {"tau": 0.05}, **options), credit.DGPO(tau=0.05)
    first, second = check_steps(run, models, estimator, temperature=0.7, reference="reference")
    assert first.metrics["credit/deviation_max"] > 0.05
    wrong = largest_gap(estimator, second, models, temperature=1.0, reference="reference")
    assert wrong > 100 * CLOSE
    expected = make_rollouts(second, models, 0.7, "reference")
    for name in credit.TokenStatistics._fields:
        if name in second.statistics:
            found = second.statistics[name].numpy()
            np.testing.assert_allclose(found, getattr(expected, name), rtol=0, atol=2e-5)


def test_lora_whose_reference_is_the_policy_without_it(steps, models):
    lora = {"trainer__policy__model__lora__rank": 4, "trainer__policy__model__lora__alpha": 16}
    run = steps("credit_dgpo", {"tau": 0.05}, trainer__policy__optimizer_config__lr=3e-2, **lora)
    assert not hasattr(run.worker.credit_reference, "wrapper")  # no second model
    first, second = run.take(), run.take()
    assert first.metrics["credit/deviation_max"] == 0.0
    assert second.metrics["credit/deviation_max"] > 1e-3
    merged = merge_lora(second.weights, alpha=16, rank=4)
    second.weights = merged
    assert largest_gap(credit.DGPO(tau=0.05), second, models) < CLOSE


def merge_lora(weights, alpha, rank):
    """The plain weights that a model with its LoRA adapter stands for."""
    plain = {}
    for name, value in weights.items():
        place = name.removeprefix("base_model.model.")
        if "lora_" in place:
            continue
        if ".base_layer." in place and place.endswith("weight"):
            down, up = (weights[name.replace("base_layer", f"lora_{part}.default")] for part in ("A", "B"))
            value = value + alpha / rank * up @ down
        plain[place.replace(".base_layer.", ".")] = value
    return plain


def test_lora_with_another_reference_loads_it(steps, models):
    lora = {"trainer__policy__model__lora__rank": 4, "trainer__ref__model__path": models / "reference"}
    run = steps("credit_dgpo", {"tau": 0.05}, **lora)
    first = run.take()
    first.weights = merge_lora(first.weights, alpha=16, rank=4)
    assert largest_gap(credit.DGPO(tau=0.05), first, models, reference="reference") < CLOSE


def test_tied_heads(steps, tmp_path):
    """SkyRL's FSDP makes parameters of their own of them, which differ once both have trained."""
    make_models(tmp_path, tied=True)
    run = steps("credit_dgpo", {"tau": 0.05}, trainer__policy__model__path=tmp_path / "model")
    first, second = run.take(), run.take()
    assert first.metrics["credit/deviation_max"] == 0.0
    assert largest_gap(credit.DGPO(tau=0.05), second, tmp_path) < CLOSE
    head, embeddings = (second.weights[f"{name}.weight"] for name in ("lm_head", "model.embed_tokens"))
    assert not torch.equal(head, embeddings)


def test_in_bfloat16_equal_models_deviate_by_exactly_0(steps, models):
    """SkyRL's default: float32 weights that FSDP rounds for a forward, and a reference that is loaded rounded."""
    option = {"trainer__policy__fsdp_config__mixed_precision__param_dtype": None}
    run = steps("credit_dgpo", {"tau": 0.05}, **option)
    weight = next(run.worker.credit_reference.wrapper.parameters())
    assert weight.dtype == torch.bfloat16
    first, second = run.take(), run.take()
    assert first.metrics["credit/deviation_max"] == 0.0
    assert first.metrics["credit/weight_max"] == 1.0
    assert second.metrics["credit/deviation_max"] > 0.05
    assert largest_gap(credit.DGPO(tau=0.05), second, models) < 0.5  # of advantages of up to several


@pytest.mark.parametrize(
    "options",
    [
        {"trainer__max_tokens_per_microbatch": 40},
        {"trainer__recompute_old_logprobs_per_minibatch": "false"},
        {"trainer__algorithm__credit__statistics_memory_mb": 0.001},
        {"trainer__algorithm__policy_loss_type": "rollout_is"},
    ],
    ids=lambda options: next(iter(options)).rpartition("__")[2],
)
def test_other_ways_to_split_a_batch_give_the_same(steps, models, options):
    """rollout_is skips the policy's forward in SkyRL itself, and the tokens are scored there all the same."""
    check_steps(steps("credit_dgpo", {"tau": 0.05}, **options), models, credit.DGPO(tau=0.05))


def test_packed_rows(steps, models):
    """SkyRL's default layout. It asks for flash attention, whose place PyTorch's takes on a CPU.

    transformers keeps packed rows apart in PyTorch's attention by their positions, as flash attention does.
    """
    run, estimator = steps("credit_dgpo", {"tau": 0.05}), credit.DGPO(tau=0.05)
    pack(run.worker.model)
    pack(run.worker.credit_reference.wrapper)
    seen = []
    run.worker.model.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    first, second = check_steps(run, models, estimator)
    assert first.metrics["credit/deviation_max"] == 0.0
    assert second.metrics["credit/deviation_max"] > 0.05
    assert {shape[0] for shape in seen} == {1}


def pack(wrapper):
    """What SkyRL's wrapper is with remove_microbatch_padding, but for the attention."""
    wrapper.remove_microbatch_padding, wrapper.attn_implementation = True, "flash_attention_2"


def test_rows_that_skyrl_adds_take_no_part(steps, models):
    """Three workers share eight responses, so that SkyRL adds one to the batch and two to each mini-batch."""
    run, estimator = steps("credit_lite_ppo"), credit.get("lite_ppo")
    run.trainer.dispatch.ways = 3
    step = run.take(train=False)
    assert len(step.mask) == 9
    assert (step.advantages[8:] == 0).all()
    step.advantages, step.mask, step.rewards, step.uids = (
        each[:8] for each in (step.advantages, step.mask, step.rewards, step.uids)
    )
    assert largest_gap(estimator, step, models) < CLOSE


def test_a_reward_that_is_no_number_leaves_the_loss(steps):
    output = make_output(seed=5)
    output["rewards"][2] = float("nan")
    step = steps("credit_dgpo", {"tau": 0.05}).take(output)
    assert step.metrics["credit/invalid_rows"] == 1
    assert (step.advantages[2] == 0).all()
    assert (step.data["loss_mask"][2] == 0).all()
    assert step.advantages.isfinite().all()
    assert np.isfinite(step.status["policy_loss"])


def test_a_response_that_is_masked_counts_in_its_group(steps):
    """As with SkyRL's overlong filtering, which masks a response and leaves its reward where it is."""
    output = make_output(seed=6)
    output["loss_masks"][1] = [0] * len(output["loss_masks"][1])
    output["rewards"][:4] = [0.0, 3.0, 0.0, 0.0]
    step = steps("credit_grpo").take(output)
    assert (step.advantages[1] == 0).all()
    assert (step.advantages[0][step.mask[0]] < -0.1).all()


def test_the_optimizer_takes_the_advantages(steps):
    """What the worker's loss gets are the advantages of the batch by SkyRL's own loss reduction."""
    run = steps("credit_dgpo", {"tau": 0.05})
    run.take()
    step = run.take()
    batches = run.trainer.dispatch.batches[-2:]
    for batch, rows in zip(batches, (slice(0, 4), slice(4, 8)), strict=True):
        expected = step.advantages[rows] / step.mask[rows].sum()
        torch.testing.assert_close(batch["advantages"], expected)
    assert step.status["policy_loss"] != 0


def test_heads_that_stay_whole_after_a_forward(steps, models):
    """As in releases of PyTorch whose FSDP leaves the outermost module whole, whatever SkyRL asks for."""
    run, estimator = steps("credit_dgpo", {"tau": 0.05}), credit.DGPO(tau=0.05)
    kinds = []
    for wrapper in (run.worker.model, run.worker.credit_reference.wrapper):
        wrapper.model.set_reshard_after_forward(False, recurse=False)
        wrapper.model.register_forward_hook(
            lambda model, *_: kinds.append(type(model.lm_head.weight)), always_call=True
        )
    check_steps(run, models, estimator)
    assert len(kinds) > 8
    assert not any(issubclass(kind, DTensor) for kind in kinds)
