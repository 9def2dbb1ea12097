"""Token statistics from the forwards that TRL makes anyway: how many are made, and that they are the same."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from trl import GRPOConfig, GRPOTrainer

from credit.adapters.trl import forward, rollouts, statistics
from credit.adapters.trl.kept_forwards import KeptForwards

OLD = {"num_iterations": 2}  # TRL needs log-probs of the policy that sampled
KL = {"beta": 0.04}
PARTS = {"per_device_train_batch_size": 4, "steps_per_generation": 2, "bf16": True}  # two forwards per pass
RESAMPLE = {"dynamic_sampling": "resample"}


def count_rows(trainer):
    """Rows of each model's forwards, from the end of the latest generation on."""
    found, generate = Counter(), trainer._generate
    for name, model in (("policy", trainer.model), ("reference", trainer.ref_model)):
        if model is not None:
            backbone = forward.find_base(trainer, model).base_model
            backbone.register_forward_hook(
                lambda module, arguments, output, name=name: found.update({name: len(output[0])})
            )

    def generate_uncounted(prompts):
        generated = generate(prompts)
        found.clear()
        return generated

    trainer._generate = generate_uncounted
    return found


def score_batch(trainer):
    """How often each model runs on each row of a generated batch."""
    rows = count_rows(trainer)
    trainer.model = trainer.accelerator.prepare_model(trainer.model).train()  # as for training, with autocast
    trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    size = trainer.args.per_device_train_batch_size * trainer.args.steps_per_generation
    return {name: count / size for name, count in rows.items()}


@pytest.fixture
def compared(monkeypatch):
    """Of each batch the statistics, and those of forwards of their own."""
    found, compute = [], statistics.compute_statistics

    def both(trainer, *arguments):
        ours = compute(trainer, *arguments)
        kept, trainer.credit.kept = trainer.credit.kept, None
        found.append((ours, lambda: compute(trainer, *arguments)))
        trainer.credit.kept = kept
        return ours

    monkeypatch.setattr(rollouts.statistics, "compute_statistics", both)
    return found


def change(model):
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.05 * torch.randn_like(weight))


@pytest.mark.releases
@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("settings", [OLD, KL, OLD | KL, OLD | PARTS], ids=lambda each: "-".join(each))
def test_a_batch_takes_one_forward_of_each_model(make_trainer, compared, settings, lora):
    extra = {}
    if lora:
        peft = pytest.importorskip("peft")
        extra["peft_config"] = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.0)
    trainer = make_trainer("dgpo", extra=extra, **settings)
    counts = score_batch(trainer)
    assert counts == ({"policy": 2} if lora else {"policy": 1, "reference": 1})
    (equal, _), *_ = compared
    assert (equal["deviation"] == 0).all()
    assert equal["extra.entropy"].max() > 0
    change(trainer.model)
    score_batch(trainer)
    ours, compute = compared[-1]
    assert ours["deviation"].max() > 1e-4
    bound = 0.05 if "bf16" in settings else 5e-6
    for name, values in compute().items():
        assert (ours[name] - values).abs().max() < bound, name


@pytest.mark.parametrize(
    ("settings", "dropout", "policy"),
    [({}, 0.0, 1), (OLD, 0.5, 2), (OLD | KL, 0.5, 2), (OLD | RESAMPLE, 0.0, 2)],
    ids=["no log-probs of TRL's", "dropout", "dropout and a KL term", "resampling"],
)
def test_the_policy_runs_once_more_where_its_forward_cannot_serve(
    make_trainer, compared, settings, dropout, policy
):
    trainer = make_trainer("dgpo", **settings)
    trainer.model.config.attention_dropout = dropout
    for layer in trainer.model.model.layers:
        layer.self_attn.attention_dropout = dropout
    counts = score_batch(trainer)
    assert counts == {"policy": policy, "reference": 1}
    assert (compared[0][0]["deviation"] == 0).all()


def test_the_importance_correction_of_vllm_runs_the_policy_for_both(make_trainer):
    """The completions are given, since there is no vLLM; what TRL then does with its log-probs is TRL's own."""

    def rollout(prompts, trainer):
        ids = [[3 + (place + k) % 10 for k in range(5)] for place in range(len(prompts))]
        prompts = trainer.processing_class(list(prompts))["input_ids"]
        return {"prompt_ids": prompts, "completion_ids": ids, "logprobs": [[-2.0] * 5 for _ in ids]}

    trainer = make_trainer("dgpo", extra={"rollout_func": rollout})
    generate = trainer._generate

    def generate_as_vllm(prompts):
        found = generate(prompts)
        trainer.use_vllm = True
        return found

    trainer._generate = generate_as_vllm
    assert score_batch(trainer) == {"policy": 1, "reference": 1}
    assert "sampling/importance_sampling_ratio/mean" in trainer._metrics["train"]


@pytest.mark.releases
def test_grpo_with_a_kl_term_makes_as_many(make_trainer):
    stock = {"kind": GRPOTrainer, "config": GRPOConfig}
    assert score_batch(make_trainer(**stock, **OLD, **KL)) == {"policy": 1, "reference": 1}
    assert score_batch(make_trainer(**stock, **KL)) == {"reference": 1}


def test_an_estimator_without_a_reference_runs_no_model(make_trainer):
    trainer = make_trainer("entropy_shaped", **OLD)
    assert score_batch(trainer) == {"policy": 1}


def test_hidden_states_beyond_the_budget_go_to_the_cpu():
    moved = object()
    arrays = [SimpleNamespace(nbytes=4e6, cpu=lambda: moved) for _ in range(3)]
    kept = KeptForwards(memory_mb=8.0)
    assert [kept.store(each) for each in arrays] == [*arrays[:2], moved]
