"""One ratio per completion with advantages of tokens: GSPO-token, made of TRL's own loss."""

from types import SimpleNamespace

import pytest
import torch
import trl

import credit
from credit.adapters.trl import CreditGRPOTrainer, gspo_token

SEQUENCE = {"importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4}
NOWHERE = "/nowhere/no-model"
AGGREGATIONS = {
    "grpo": "sequence_mean",
    "bnpo": "token_mean",
    "dapo": "token_mean",
    "dr_grpo": "fixed_horizon",
    "luspo": "sequence_sum",
    "sapo": "sequence_mean",
}


def taught(make_trainer, name="dgpo", kwargs=None, **settings):
    """A trainer in the second step on a batch whose first token and one other of each row are not its own."""

    def roll(prompts, trainer):
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(3, 13, (len(prompts), 9), generator=generator).tolist()
        ids = [row[: 5 + place % 5] for place, row in enumerate(ids)]
        return {
            "prompt_ids": [trainer.processing_class(prompt)["input_ids"] for prompt in prompts],
            "completion_ids": ids,
            "logprobs": [[-2.5] * len(row) for row in ids],
            "env_mask": [[int(place not in (0, 3)) for place in range(len(row))] for row in ids],
        }

    settings = SEQUENCE | {"num_iterations": 2, "max_steps": 2} | settings
    trainer = make_trainer(
        name, {"tau": 0.003} if kwargs is None else kwargs, extra={"rollout_func": roll}, **settings
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(2e-3 * torch.randn(parameter.shape, generator=generator))
    return trainer, inputs


def with_token_advantages(inputs):
    """Those of before the first step, by which all weights are 1, made different between the tokens."""
    mask = inputs["completion_mask"] * inputs["tool_mask"]
    spread = 0.2 + torch.rand(mask.shape, generator=torch.Generator().manual_seed(2))
    return inputs | {"advantages": inputs["advantages"] * spread}, mask


def loss_and_gradient(trainer, loss):
    trainer.model.zero_grad()
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in trainer.model.parameters()])


def log_probs(trainer, inputs):
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    seen = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    width = inputs["completion_ids"].shape[1]
    return trainer._get_per_token_logps_and_entropies(trainer.model, ids, seen, width)[0]


@pytest.mark.parametrize("loss_type", AGGREGATIONS)
def test_value_and_gradient_are_gspo_tokens(make_trainer, loss_type):
    if loss_type == "luspo" and trl.__version__.startswith("1.9."):
        pytest.skip("refused there")
    trainer, inputs = taught(make_trainer, loss_type=loss_type)
    inputs, mask = with_token_advantages(inputs)
    held = dict(inputs)
    value, gradient = loss_and_gradient(trainer, trainer._compute_loss(trainer.model, inputs))
    settings = {"ratio": "sequence", "aggregation": AGGREGATIONS[loss_type]}
    if loss_type == "sapo":
        settings["objective"] = "sapo"
    else:
        settings |= {"clip_low": 3e-4, "clip_high": 4e-4}
    if loss_type == "dr_grpo":
        settings["horizon"] = trainer.args.max_completion_length
    new = log_probs(trainer, inputs)
    loss, metrics = credit.PolicyLoss(**settings)(
        new, inputs["old_per_token_logps"], inputs["advantages"], mask.bool()
    )
    expected, slope = loss_and_gradient(trainer, loss)
    assert abs(metrics["ratio_max"] - 1) > 1e-3
    if loss_type != "sapo":
        assert 0 < metrics["clip_fraction_high"] + metrics["clip_fraction_low"] < 1
    assert value == pytest.approx(expected, abs=2e-6)
    assert slope.abs().max() > 1e-2
    torch.testing.assert_close(gradient, slope, atol=2e-6, rtol=1e-4)
    # As the user set it, and as TRL sampled it.
    assert trainer.importance_sampling_level == trainer.args.importance_sampling_level == "sequence"
    assert all(inputs[name] is array for name, array in held.items())
    assert trainer.credit.awaiting is None


def test_the_weights_of_tokens_reach_the_gradient(make_trainer):
    """TRL's own loss of one ratio would average them away."""
    trainer, inputs = taught(make_trainer)
    inputs, mask = with_token_advantages(inputs)
    mean = (inputs["advantages"] * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True)
    _, told = loss_and_gradient(trainer, trainer._compute_loss(trainer.model, inputs))
    _, averaged = loss_and_gradient(
        trainer, trainer._compute_loss(trainer.model, inputs | {"advantages": mean * mask})
    )
    assert (told - averaged).abs().max() > 1e-3
    _, stock = loss_and_gradient(
        trainer, trainer._compute_loss(trainer.model, inputs | {"advantages": mean[:, 0]})
    )
    torch.testing.assert_close(averaged, stock, atol=2e-6, rtol=1e-4)


def test_tokens_of_low_entropy_leave_the_loss_alone(make_trainer):
    """They still count in the ratio of their completion, as in TRL's own loss of one ratio."""
    trainer, inputs = taught(make_trainer, loss_type="grpo", top_entropy_quantile=0.5)
    inputs, mask = with_token_advantages(inputs)
    choose, chosen = trainer.get_high_entropy_mask, []
    trainer.get_high_entropy_mask = lambda *given: chosen.append(choose(*given)) or chosen[-1]
    value, gradient = loss_and_gradient(trainer, trainer._compute_loss(trainer.model, inputs))
    assert 0 < chosen[0].sum() < mask.sum()
    settings = {"ratio": "sequence", "aggregation": "sequence_mean", "clip_low": 3e-4, "clip_high": 4e-4}
    loss, _ = credit.PolicyLoss(**settings)(
        log_probs(trainer, inputs),
        inputs["old_per_token_logps"],
        inputs["advantages"] * chosen[0],
        mask.bool(),
    )
    expected, slope = loss_and_gradient(trainer, loss)
    assert value == pytest.approx(expected, abs=2e-6)
    torch.testing.assert_close(gradient, slope, atol=2e-6, rtol=1e-4)


def test_clipped_shares_masks_and_kl_are_those_of_the_ratio(make_trainer):
    """The off-policy mask averages log p - log p_old over a completion, which is the same of both."""
    settings = {
        "off_policy_mask_threshold": 1e-5,
        "delta": 1.001,
        "beta": 0.1,
        "use_bias_correction_kl": True,
        "top_entropy_quantile": 0.5,
    }
    trainer, inputs = taught(make_trainer, **settings)
    rows = inputs["advantages"].amax(dim=1) + inputs["advantages"].amin(dim=1)
    mask = inputs["completion_mask"] * inputs["tool_mask"]
    found = []
    for form in (rows[:, None] * mask, rows):  # the second is TRL's own GSPO
        trainer._metrics["train"].clear()
        value, gradient = loss_and_gradient(
            trainer, trainer._compute_loss(trainer.model, inputs | {"advantages": form})
        )
        found.append((value, gradient, {name: v[-1] for name, v in trainer._metrics["train"].items()}))
    (ours, slope, metrics), (theirs, _, stock) = found
    assert ours == pytest.approx(theirs, abs=2e-6)
    assert (metrics["kl"], metrics["entropy"]) == (stock["kl"], stock["entropy"])
    assert metrics["clip_ratio/low_min"] == stock["clip_ratio/low_min"]
    assert slope.abs().max() > 1e-2


def test_estimators_of_one_number_keep_trls_own_gspo(train, monkeypatch):
    settings = {"importance_sampling_level": "sequence", "loss_type": "grpo", "num_iterations": 2}
    monkeypatch.setattr(gspo_token, "use_ratio_of_completions", None)
    for name in ("grpo", "grpo_s"):
        trainer, _ = train(name, **settings)
        assert trainer._buffered_inputs[0]["advantages"].ndim == 1


def test_dgpo_trains_with_it(train):
    settings = {"importance_sampling_level": "sequence", "loss_type": "grpo", "num_iterations": 2}
    _, log = train("dgpo", {"tau": 0.003}, max_steps=4, learning_rate=3e-2, **settings)
    _, tokens = train(
        "dgpo", {"tau": 0.003}, max_steps=4, learning_rate=3e-2, loss_type="grpo", num_iterations=2
    )
    assert log[0]["grad_norm"] == pytest.approx(tokens[0]["grad_norm"], rel=1e-4)  # all ratios are 1
    assert log[3]["grad_norm"] != pytest.approx(tokens[3]["grad_norm"], rel=1e-2)


def test_a_loss_that_computes_log_probs_elsewhere_is_an_error(make_trainer, monkeypatch):
    trainer, inputs = taught(make_trainer)
    monkeypatch.setattr(type(trainer).__mro__[2], "_compute_loss", lambda self, model, inputs: 0.0)
    with pytest.raises(RuntimeError, match="did not call _get_per_token_logps_and_entropies"):
        trainer._compute_loss(trainer.model, inputs)
    assert trainer.importance_sampling_level == "sequence"


def test_ratios_survive_log_probs_in_half_precision():
    old = torch.tensor([[-9.0, -7.0, -5.0, 0.0]], dtype=torch.bfloat16)
    new, mask = (
        old + torch.tensor([[0.5, 0.25, 0.0, 3.0]], dtype=torch.bfloat16),
        torch.tensor([[1, 1, 1, 0]]),
    )
    given = {"old_per_token_logps": old, "completion_mask": mask}
    trainer = SimpleNamespace(credit=SimpleNamespace(awaiting=given))
    gspo_token.replace_old_log_probs(trainer, new)
    torch.testing.assert_close(new - given["old_per_token_logps"], torch.full((1, 4), 0.25))


class OwnLoss(CreditGRPOTrainer):
    """A loss of the user's own that takes advantages of tokens."""

    takes_token_advantages = True

    def _compute_loss(self, model, inputs):
        return super()._compute_loss(model, inputs)


def test_a_loss_of_its_own_is_refused(make_trainer):
    settings = {
        "importance_sampling_level": "sequence",
        "loss_type": "grpo",
        "model": NOWHERE,
        "kind": OwnLoss,
    }
    with pytest.raises(ValueError, match="is made of GRPOTrainer's loss, and OwnLoss has one of its own"):
        make_trainer("dgpo", **settings)
    with pytest.raises(OSError, match="no-model"):
        make_trainer("grpo", **settings)
