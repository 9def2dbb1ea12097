"""Models whose logits are not hidden states times a plain weight are an error, not a wrong statistic."""

import pytest
import torch
from skyrl_models import make_output

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
