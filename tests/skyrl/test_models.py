"""Models whose logits are not hidden states times a plain weight are an error, not a wrong statistic."""

import pytest
import ray
import torch
from skyrl.backends.skyrl_train.workers.fsdp.fsdp_worker import FSDPPolicyWorkerBase, PolicyWorker
from skyrl_models import make_output
from transformers import AutoModelForCausalLM

from credit.adapters.skyrl import statistics, worker
from credit.adapters.skyrl.statistics import Request


@pytest.fixture
def request_of(models):
    return lambda run: Request(run.choice.scored, str(models / "model"), 256.0)


def scale(output):
    output.logits.mul_(3)


def test_logits_that_are_made_in_another_way_end_the_run(steps):
    run = steps("credit_dgpo", {"tau": 0.05})
    model = run.worker.model.model
    model.register_forward_hook(lambda module, inputs, output: scale(output))
    with pytest.raises(
        ValueError, match="log-probs from the model's hidden states and lm_head are .* nats off"
    ):
        run.take(make_output())


def test_a_head_that_is_no_plain_weight_is_an_error_before_a_rollout(steps, request_of):
    run = steps("credit_dgpo", {"tau": 0.05})

    class Scaled(torch.nn.Linear):
        def forward(self, values):
            return 2 * super().forward(values)

    run.worker.model.model.lm_head = Scaled(32, 16, bias=False)
    with pytest.raises(ValueError, match="lm_head is a .*Scaled with a weight of type Parameter"):
        run.worker.prepare_credit(request_of(run))


def test_a_pass_that_is_not_of_the_trainer_stays_skyrls(steps):
    """Such as that of an evaluation of one's own: without the loss mask nothing is scored."""
    run = steps("credit_dgpo", {"tau": 0.05})
    step = run.take(train=False)
    data = step.data.select(["sequences", "attention_mask"], ["response_length"])
    output = run.worker.forward(data)
    assert {name for row in output.loss_fn_outputs for name in row} == {"logprobs"}
    found = torch.tensor([row["logprobs"] for row in output.loss_fn_outputs])
    torch.testing.assert_close(found, step.data["action_log_probs"], rtol=0, atol=1e-6)


def test_a_head_on_the_cpu_comes_to_the_hidden_states(models):
    """As with FSDP's cpu_offload; "meta" stands for a GPU."""
    model = AutoModelForCausalLM.from_pretrained(models / "model")
    head = statistics.read_head(model, torch.zeros(2, 4, device="meta", dtype=torch.bfloat16))
    assert (head.weight.device.type, head.weight.dtype) == ("meta", torch.bfloat16)


def test_a_policy_worker_of_the_users_own_is_never_replaced():
    @ray.remote
    class Derived(worker.CreditPolicyWorkerBase):
        pass

    @ray.remote
    class Other(FSDPPolicyWorkerBase):
        pass

    assert worker.choose_worker(PolicyWorker) is worker.CreditPolicyWorker
    assert worker.choose_worker(Derived) is Derived
    with pytest.raises(
        ValueError, match="computes no token statistics; derive it from credit.adapters.skyrl.w"
    ):
        worker.choose_worker(Other)
