"""Statistics from the hidden states of slime's passes: slices, what is kept, and what is noticed."""

import pytest
import slime_batch
import torch

import credit
from credit.adapters import slime
from credit.adapters.slime.statistics import Scorer

DGPO = {"tau": 0.05}


@pytest.fixture
def assign(megatron):
    def run(name="dgpo", settings=DGPO, models=None, micro_batches=3, **given):
        samples = slime_batch.make_samples()
        args = slime_batch.name_args(name, samples, settings, **slime_batch.HOOKED | given)
        slime_batch.forget_process()
        return slime_batch.assign(
            args, models or slime_batch.make_models(), samples, micro_batches=micro_batches
        )

    return run


def test_slices_of_tokens_change_nothing(assign):
    whole = assign()["advantages"]
    sliced = assign(settings=DGPO | {"statistics_memory_mb": 1e-3})["advantages"]  # two tokens each
    assert max((a - b).abs().max() for a, b in zip(whole, sliced, strict=True)) < 1e-5


def test_a_micro_batch_without_a_token_of_the_policys(assign):
    """One sample each, of which one has an empty mask."""
    whole, apart = assign()["advantages"], assign(micro_batches=1)["advantages"]
    assert max((a - b).abs().max() for a, b in zip(whole, apart, strict=True)) < 1e-5


def test_equal_models_deviate_by_exactly_0(assign):
    policy, _ = slime_batch.make_models()
    data = assign(models=(policy, policy))
    assert data["credit/deviation_max"] == 0
    assert data["credit/weight_max"] == 1
    plain = assign("grpo", {}, models=(policy, policy))["advantages"]
    assert all(map(torch.equal, data["advantages"], plain))


def test_dgpo_differs_from_grpo_once_the_models_differ(assign):
    ours, plain = assign()["advantages"], assign("grpo", {})["advantages"]
    assert max((a - b).abs().max() for a, b in zip(ours, plain, strict=True)) > 0.5


def test_no_pass_is_made_for_statistics(assign, monkeypatch):
    """The reference's and the policy's passes are slime's own, one each."""
    import slime_actor

    calls = []
    real = slime_actor.forward_only
    monkeypatch.setattr(
        slime_actor, "forward_only", lambda *a, **k: calls.append(k["store_prefix"]) or real(*a, **k)
    )
    for name, settings in (("dgpo", DGPO), ("grpo", {})):  # the second with slime's own KL term alone
        calls.clear()
        assign(name, settings)
        assert calls == ["ref_", ""]


def test_nothing_is_kept_after_a_batch(assign):
    assign()
    scorer = slime._hooks._trainer.scorer
    assert not any((scorer.kept, scorer.scored, scorer._handles, scorer._call))
    assert scorer._reference is None


def test_an_estimator_of_rewards_listens_to_no_pass(assign):
    assign("grpo", {})
    assert slime._hooks._trainer.scorer is None


def test_a_model_with_another_head_is_noticed(assign, monkeypatch):
    """As one whose logits are scaled after the head."""
    import slime_actor

    real = slime_actor.Wrapper.forward

    def scaled(self, *positional, **named):
        output = real(self, *positional, **named)
        return output * 30

    monkeypatch.setattr(slime_actor.Wrapper, "forward", scaled)
    with pytest.raises(
        ValueError, match="nats off those of the framework, so its logits are made in another way"
    ):
        assign()


def test_other_micro_batches_are_noticed(assign, monkeypatch):
    real = Scorer._keep

    def shifted(self, call, predicts, ids):
        real(self, call, predicts, ids + 1)

    monkeypatch.setattr(Scorer, "_keep", shifted)
    with pytest.raises(
        RuntimeError, match="split the batch into other micro-batches for policy than for reference"
    ):
        assign()


def test_a_policy_without_a_reference_before_it_is_noticed(assign, monkeypatch):
    real = Scorer.begin

    def begin(self, args, model, prefix):
        real(self, args, model, "teacher_" if prefix == "ref_" else prefix)

    monkeypatch.setattr(Scorer, "begin", begin)
    with pytest.raises(
        RuntimeError, match="the policy over micro-batch 1, and ran the reference over 0 before it"
    ):
        assign()


@pytest.fixture
def listening(megatron):
    """A scorer that only counts, and a model with its head where Megatron's have it."""
    model = torch.nn.Module()
    model.module = torch.nn.Module()
    model.module.post_process = True
    model.module.output_layer = torch.nn.Linear(2, 3)
    model.forward = lambda input_ids, loss_mask: model.module.output_layer(torch.ones(2, 1, 2))
    scorer, heard = Scorer(("normalized_entropy",), 256.0), []
    scorer._score = lambda *given: heard.append(given)

    def run(*, grad=False):
        with torch.set_grad_enabled(grad):
            model(input_ids=torch.zeros(1, 2), loss_mask=torch.ones(1, 2))
        return len(heard)

    return scorer, model, run


def test_training_is_not_listened_to(listening):
    """Where slime trains although nobody asked for advantages after its passes."""
    scorer, model, run = listening
    scorer.begin(None, [model], "")
    assert run(grad=True) == 0
    assert run() == 1


def test_a_pass_of_a_teacher_is_not_heard(listening):
    """It comes between those of reference and policy."""
    scorer, model, run = listening
    scorer.begin(None, [model], "")
    assert run() == 1
    scorer.begin(None, [model], "teacher_")
    assert run() == 1


def test_a_model_without_megatrons_head_is_named(megatron):
    with pytest.raises(ValueError, match=r"the model \(Linear\) has no output_layer"):
        Scorer(("deviation",), 256.0).begin(None, [torch.nn.Linear(2, 2)], "ref_")


def test_a_vocabulary_that_lacks_tokens_is_named(assign):
    with pytest.raises(
        ValueError, match="a response has the id 4[0-3], and the vocabulary 40 tokens .* --vocab-size"
    ):
        assign(vocab_size=40)


def test_a_hook_that_is_not_credits_is_noticed(assign):
    with pytest.raises(
        RuntimeError, match="no pass of the policy has left any: either --custom-megatron-before"
    ):
        assign(custom_megatron_before_log_prob_hook_path="tiny_megatron.nothing")


def test_another_reference_than_the_first_model_is_named(assign, caplog):
    assign()
    assert any(
        "--ref-load is another model than the one that training" in r.getMessage() for r in caplog.records
    )
    caplog.clear()
    policy, _ = slime_batch.make_models()
    assign(models=(policy, policy))
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_an_object_of_the_users_own(megatron):
    """An estimator in a module of the user's, whose functions the options name."""
    import own_run

    samples = slime_batch.make_samples()
    paths = {
        "custom_advantage_function_path": "own_run.advantages",
        "custom_megatron_before_log_prob_hook_path": "own_run.before_log_prob",
        "custom_megatron_init_path": "own_run.check",
    }
    args = slime_batch.name_args("", samples, kl_coef=0.1, **paths)
    data = slime_batch.assign(args, slime_batch.make_models(), samples)
    named = slime_batch.name_args("dgpo", samples, DGPO, **slime_batch.HOOKED)
    expected = slime_batch.assign(named, slime_batch.make_models(), samples)
    assert all(map(torch.equal, data["advantages"], expected["advantages"]))
    assert own_run.hooks._trainer.estimator == credit.DGPO(tau=0.05)
