"""Responses that take no part: their siblings, OpenRLHF's own loss and what it logs are as without them."""

import os
import subprocess
import sys
from math import isnan
from types import SimpleNamespace

import openrlhf_cases as cases
import pytest
import torch
from openrlhf.models.loss import PolicyLoss, ValueLoss
from openrlhf.trainer.ray.ppo_actor import ActorPPOTrainer, PolicyModelActor
from openrlhf.trainer.ray.ppo_critic import CriticModelActor, CriticPPOTrainer
from openrlhf.utils.loss_utils import _optimizer_step_loss_norm
from ray import cloudpickle

from credit.adapters.openrlhf.critic_training import CreditCriticPPOTrainer
from credit.adapters.openrlhf.policy_training import CreditActorPPOTrainer
from credit.adapters.openrlhf.worker import CreditPolicyModelActor

NAN, INF = float("nan"), float("inf")
GROUP_NORM = ["grpo", "--credit.preset", "openrlhf"]
THIRD = 1 / 3**0.5


def of_four(parse, rewards, masks, *flags):
    """Credit of hand-made responses, four to a prompt, from the fields of one micro-batch."""
    made = cases.batch(torch.tensor(rewards), torch.tensor(masks))
    return cases.run_maker(parse("--algo.advantage.estimator", *flags), [made])[0]


def test_a_response_without_action_tokens_takes_no_part_in_its_group(parse):
    """OpenRLHF#1239: an agent whose prompt leaves no room still gets a reward, which shifts its group's mean."""
    masks = [[0, 0], [1, 1], [1, 1], [1, 1]]
    made = of_four(parse, [1.0, 0.0, 0.0, 1.0], masks, *GROUP_NORM)
    expected = torch.tensor([0.0, -THIRD, -THIRD, 2 * THIRD])
    torch.testing.assert_close(made.advantages, expected[:, None] * torch.tensor(masks))
    assert (made.info["credit/invalid_rows"] == 1).all()
    torch.testing.assert_close(made.info["group_reward_std"], torch.full((4,), THIRD))
    torch.testing.assert_close(made.info["return"], expected)
    assert made.info["reward"].tolist() == [1, 0, 0, 1]  # it is one that OpenRLHF was given


@pytest.mark.parametrize("name", ["grpo", "credit_rloo", "credit_dr_grpo", "reinforce_plus_plus", "dapo"])
@pytest.mark.parametrize("strange", [NAN, INF, -INF])
def test_the_siblings_of_a_row_without_reward_get_what_they_get_without_it(parse, name, strange):
    masks = [[1, 0, 1], [1, 1, 0], [1, 1, 1], [1, 1, 1]]
    rewards = [strange, 0.0, 0.5, 2.0]
    made = of_four(parse, rewards, masks, name, "--reward.clip_range", -1, 1)
    alone = of_four(parse, rewards[1:], masks[1:], name, "--reward.clip_range", -1, 1)
    torch.testing.assert_close(made.advantages[1:], alone.advantages, rtol=0, atol=0)
    assert made.advantages[0].tolist() == made.action_mask[0].tolist() == [0, 0, 0]
    assert made.action_mask[1:].tolist() == masks[1:]
    assert made.info["credit/invalid_rows"][0] == 1


@pytest.mark.parametrize("name", ["mt_grpo", "process_grpo"])
@pytest.mark.parametrize("strange", [NAN, INF])
def test_a_row_with_a_tokens_reward_that_is_no_number_takes_no_part(parse, name, strange):
    def of_rows(reward, first):
        made = cases.batch(torch.tensor([reward, 0.0, 0.5, 2.0]), torch.ones(4, 4, dtype=torch.long))
        rows = [[0.0, first, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.0], [0.0, 3.0, 0.0, 1.0]]
        made.info |= {"credit_token_rewards": rows, "credit_turns": [[0, 0, 1, 1]] * 4}
        return cases.run_maker(parse("--algo.advantage.estimator", name), [made])[0]

    made, without = of_rows(1.0, strange), of_rows(NAN, 1.0)
    torch.testing.assert_close(made.advantages, without.advantages, rtol=0, atol=0)
    assert made.advantages[1:].abs().max() > 0.1
    assert made.action_mask.sum(dim=1).tolist() == [0, 4, 4, 4]
    assert made.info["credit/invalid_rows"][0] == 1


@pytest.mark.parametrize("aggregation", ["token-mean", "seq-mean-token-mean", "gspo"])
def test_openrlhfs_gradient_is_that_without_the_row(parse, aggregation):
    """Through OpenRLHF's own loss and the counts that it takes of a step of the optimizer."""
    masks = [[1, 1, 0], [1, 1, 1], [1, 1, 1], [1, 0, 1]]
    rewards = [0.0, NAN, 0.5, 2.0]
    made = of_four(parse, rewards, masks, *GROUP_NORM)
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    kind = "gspo" if aggregation == "gspo" else "ppo"
    loss_of = PolicyLoss(token_level_loss=aggregation == "token-mean", policy_loss_type=kind)
    gradients = []
    for rows in ([0, 1, 2, 3], [0, 2, 3]):
        new, mask = logits[rows].clone().requires_grad_(), made.action_mask[rows]
        counts = _optimizer_step_loss_norm([mask], None, 1, 1)
        loss, *logged = loss_of(new, logits[rows] - 0.1, made.advantages[rows], mask, **counts)
        loss.backward()
        assert all(each.isfinite() for each in logged if each is not None)
        gradients.append(new.grad)
    assert gradients[0][1].tolist() == [0, 0, 0]
    torch.testing.assert_close(gradients[0][[0, 2, 3]], gradients[1])
    assert gradients[1].abs().max() > 0.1


def test_the_critics_loss_leaves_it_out(parse):
    made = of_four(parse, [0.0, NAN, 0.5, 2.0], [[1, 1]] * 4, "credit_gae")
    counts = _optimizer_step_loss_norm([made.action_mask], None, 1, 1)
    loss = ValueLoss()(torch.ones(4, 2), torch.zeros(4, 2), made.returns, made.action_mask, **counts)
    squares = [(1 - float(made.returns[row, t])) ** 2 for row in (0, 2, 3) for t in (0, 1)]
    torch.testing.assert_close(loss.item(), 0.5 * sum(squares) / 6)


def test_openrlhfs_means_are_over_the_rows_that_have_a_value(parse):
    """OpenRLHF logs the mean of each row's entry of info; of no tokens, its mean KL is NaN."""
    made = cases.batch(torch.tensor([1.0, NAN, 3.0, 5.0]), torch.tensor([[1, 1], [1, 1], [0, 0], [1, 1]]))
    made.info |= {
        "kl": torch.tensor([0.1, 0.2, NAN, 0.6]),
        "own": torch.tensor([NAN, 1.0, 1.0, 1.0]),
        "response_clip_ratio": torch.tensor([True, False, False, False]),
    }
    cases.run_maker(parse("--algo.advantage.estimator", "grpo"), [made])
    assert made.info["reward"].mean() == 3.0
    torch.testing.assert_close(made.info["kl"].mean(), torch.tensor(0.3))
    assert made.info["own"][0].isnan()  # of a row that takes part, whose NaN is news
    assert made.info["response_clip_ratio"].dtype == torch.bool
    assert all(values.isfinite().all() for name, values in made.info.items() if name != "own")


def test_without_any_reward_the_logged_mean_is_none(parse):
    made = of_four(parse, [NAN] * 4, [[1, 1]] * 4, "grpo")
    assert made.info["reward"].isnan().all()
    assert not made.advantages.any()
    assert not made.action_mask.any()


class Model(torch.nn.Module):
    """Stands for policy and critic: a value per action, from a weight per token of the vocabulary."""

    def __init__(self):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.linspace(-2, -1, 12))
        self.aux_loss = 0

    def forward(self, sequences, action_mask, **named):
        return self.weights[sequences[:, 1:]] * action_mask, SimpleNamespace(entropy=None)


def trainer(kind, buffer, **named):
    """A trainer of OpenRLHF's without DeepSpeed, whose `training_step` computes a gradient."""
    model = Model()
    strategy = SimpleNamespace(
        ring_attn_group=None,
        backward=lambda loss, *_: loss.backward(),
        optimizer_step=lambda *_, **__: None,
        get_grad_norm=lambda _: model.weights.grad.norm(),
    )
    args = SimpleNamespace(
        train=SimpleNamespace(dynamic_batch_enable=buffer.dynamic),
        actor=SimpleNamespace(entropy_coef=None, aux_loss_coef=0.0),
        algo=SimpleNamespace(kl=SimpleNamespace(use_loss=True, init_coef=0.1, estimator="k3")),
    )
    args.algo.kl.unbiased_gradient = False
    made = object.__new__(kind)
    scheduler = SimpleNamespace(get_last_lr=lambda: [1.0])
    made.__dict__ |= {"strategy": strategy, "args": args, "replay_buffer": buffer, "aux_loss": False}
    made.__dict__ |= {"ema_model": None, "actor_optim": None, "critic_optim": None, "critic": model}
    made.__dict__ |= {"actor": model, "actor_scheduler": scheduler, "critic_scheduler": scheduler, **named}
    return made


def empty_step(parse, dynamic):
    made = cases.batch(torch.full((2,), NAN), torch.ones(2, 3).long(), index=[0, 1])
    cases.run_maker(parse("--algo.advantage.estimator", "grpo"), [made])
    made.action_log_probs = made.base_action_log_probs = torch.full((2, 3), -1.5)
    made.values = torch.zeros(2, 3)
    counts = None if dynamic else _optimizer_step_loss_norm([made.action_mask], None, 1, 1)
    buffer = SimpleNamespace(dynamic=dynamic, dynamic_optimizer_step=[1], dynamic_sample_loss_scale=[1.0])
    buffer.dynamic_batch_num_tokens, buffer.dynamic_global_batch_size = (
        ([0.0], [0.0]) if dynamic else ([], [])
    )
    return made, counts, buffer


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("token_level", [False, True])
def test_a_step_of_the_policy_in_which_no_row_takes_part_changes_nothing(parse, dynamic, token_level):
    made, counts, buffer = empty_step(parse, dynamic)
    loss = PolicyLoss(token_level_loss=token_level)
    theirs = trainer(ActorPPOTrainer, buffer, actor_loss_fn=loss)
    assert theirs.training_step(made, 0.1, 0, counts)["num_action_tokens"] == 0
    assert theirs.actor.weights.grad.isnan().any()  # which is why there is a trainer of ours
    made, counts, buffer = empty_step(parse, dynamic)
    ours = trainer(CreditActorPPOTrainer, buffer, actor_loss_fn=loss)
    status = ours.training_step(made, 0.1, 0, counts)
    assert not ours.actor.weights.grad.any()
    assert 0 < status["num_action_tokens"] < 1e-6
    for name, value in status["metrics"].items():
        assert name == "reward" or torch.as_tensor(value).isfinite().all(), name


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_step_of_the_critic_in_which_no_row_takes_part_changes_nothing(parse, dynamic):
    made, counts, buffer = empty_step(parse, dynamic)
    theirs = trainer(CriticPPOTrainer, buffer, critic_loss_fn=ValueLoss())
    theirs.training_step(made, 0, counts)
    assert theirs.critic.weights.grad.isnan().any()
    made, counts, buffer = empty_step(parse, dynamic)
    ours = trainer(CreditCriticPPOTrainer, buffer, critic_loss_fn=ValueLoss())
    status = ours.training_step(made, 0, counts)
    assert not ours.critic.weights.grad.any()
    assert all(torch.as_tensor(value).isfinite() for value in status.values())
    made.action_mask[0, 0] = 1
    counts = _optimizer_step_loss_norm([made.action_mask], None, 1, 1)
    assert ours.training_step(made, 0, counts)["values"] == pytest.approx(ours.credit_status["values"])
    assert ours.credit_status["values"] < -1
    made.returns = made.returns + NAN  # a critic that diverges is seen
    assert isnan(ours.training_step(made, 0, counts)["critic_loss"])


IN_WORKER = """
import pickle, sys
from credit.adapters.openrlhf import worker_setup
worker_setup.install_import_hook()
kinds = pickle.load(open(sys.argv[1], "rb"))
for kind in kinds:
    made = next(each for each in kind.__mro__ if each.__module__.startswith("openrlhf."))
    known = made.init_model_from_pretrained.__globals__
    print(*[known[name].__name__ for name in ("ActorPPOTrainer", "CriticPPOTrainer") if name in known])
"""


def test_rays_workers_train_with_these_trainers(tmp_path):
    """Ray sends OpenRLHF's classes of workers by value, with the names that they use of their modules."""
    kinds = [each.__ray_actor_class__ for each in (PolicyModelActor, CriticModelActor)]
    (tmp_path / "kinds").write_bytes(cloudpickle.dumps([*kinds, CreditPolicyModelActor]))
    done = subprocess.run(
        [sys.executable, "-c", IN_WORKER, str(tmp_path / "kinds")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [
        word for word in done.stdout.split() if word.endswith("PPOTrainer")
    ]  # DeepSpeed prints there too
    policy, critic = "CreditActorPPOTrainer", "CreditCriticPPOTrainer"
    assert found == [policy, critic, policy], done.stdout + done.stderr[-2000:]
