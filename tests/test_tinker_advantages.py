"""The example for tinker-cookbook, on its own types; it runs in the session `tinker`."""

import asyncio
import inspect
from importlib import import_module

import numpy as np
import pytest
from sampled_log_probs import BoundedDeviation
from sampled_tokens import RANDOM, VOCABULARY, compute_deviation, normalize, pick

PROMPT, SECOND = [1, 2, 3], [9, 9]
# Per trajectory its actions. The second has two turns, the third starts anew for its second turn, which makes two
# datums of it, and the last has sampled nothing.
ACTIONS = ([[4, 5, 6, 7]], [[5, 5], [8, 4, 4]], [[6, 6, 2], [3, 3]], [])
REWARDS = [1.0, 0.0, 0.75, 0.0]


@pytest.fixture
def cookbook():
    pytest.importorskip("tinker_cookbook", reason="tinker-cookbook is not in this environment")
    return import_module("tinker_advantages")


class Model:
    """What tinker's service does, on the host: it answers with log-probs of a distribution for each last token.

    The service is remote. Its place is taken here alone: requests must fit the signature of the real client, and
    answers are of its types.
    """

    def __init__(self, logits):
        self.log_probs = normalize(logits)

    def score(self, ids):
        """log p [T, V] of what follows each token but the last."""
        return self.log_probs[np.array(ids[:-1])]

    def compute_logprobs(self, prompt):
        async def answer():
            ids = prompt.to_ints()
            return [None, *pick(self.score(ids), np.array(ids[1:])).tolist()]

        return answer()

    def sample(self, *arguments, **named):
        import tinker

        inspect.signature(tinker.SamplingClient.sample).bind(self, *arguments, **named)
        prompt, asked = arguments[0], named.get("target_prompt_logprobs")
        ids, k = prompt.to_ints(), named.get("topk_prompt_logprobs", 0)
        scores = self.score(ids)
        answer = {"prompt_logprobs_np": np.array([np.nan, *pick(scores, np.array(ids[1:]))], np.float32)}
        if k:
            top = np.argsort(-scores, axis=-1)[:, :k]
            # The first row has no context, and the last place of the fourth row has no token.
            tokens = np.concatenate([np.zeros((1, k)), top]).astype(np.int32)
            found = np.concatenate([np.full((1, k), -99999.0), np.take_along_axis(scores, top, -1)])
            tokens[3, -1], found[3, -1] = 0, -99999.0
            answer["topk_prompt_logprobs_np"] = tinker.types.topk_logprobs.TopkLogprobs(
                tokens, found.astype(np.float32)
            )
        if asked is not None:
            wanted = asked.to_numpy()
            assert wanted.shape[0] == len(ids) - 1
            found = np.take_along_axis(scores, np.maximum(wanted, 0), axis=-1)
            answer["target_prompt_logprobs"] = tinker.TensorData.from_numpy(
                np.where(wanted < 0, 0, found).astype(np.float32)
            )

        async def reply():
            return tinker.types.SampleResponse(sequences=[], **answer)

        return reply()


def make_trajectories(model):
    """A group of tinker-cookbook, whose actions have the log-probs of the model, and the cookbook's datums of it."""
    import tinker
    from tinker_cookbook.completers import TokensWithLogprobs
    from tinker_cookbook.rl import data_processing, types

    trajectories = []
    for number, (actions, reward) in enumerate(zip(ACTIONS, REWARDS, strict=True)):
        context, transitions = list(PROMPT), []
        for action in actions:
            log_probs = pick(model.score(context + action), np.array((context + action)[1:]))[-len(action) :]
            sampled = TokensWithLogprobs(tokens=action, maybe_logprobs=log_probs.tolist())
            prompt = tinker.ModelInput.from_ints(context)
            last = len(transitions) == len(actions) - 1
            transitions.append(types.Transition(prompt, sampled, reward if last else 0.0, last))
            context = list(SECOND) if number == 2 else context + action + SECOND
        trajectories.append(types.Trajectory(transitions, tinker.ModelInput.from_ints(context)))
    groups = [types.TrajectoryGroup(trajectories, [0.0] * len(ACTIONS), [{} for _ in ACTIONS])]
    advantages = data_processing.compute_advantages(groups)
    return groups, *data_processing.assemble_training_data(groups, advantages)


@pytest.mark.parametrize("top_k", [0, 3, VOCABULARY])
def test_tinkers_datums_get_advantages_of_their_tokens(cookbook, top_k):
    logits = RANDOM.normal(size=(VOCABULARY, VOCABULARY))
    policy, reference = Model(logits), Model(logits + 0.5 * RANDOM.normal(size=logits.shape))
    groups, data, metadata = make_trajectories(policy)
    before = [datum.loss_fn_inputs["advantages"].to_numpy().copy() for datum in data]
    arguments = (data, metadata, groups, reference)
    settings = {"policy": policy, "top_k": top_k} if top_k else {}
    metrics = asyncio.run(
        cookbook.assign_credit(*arguments, BoundedDeviation(tau=0.05, base="dr_grpo"), **settings)
    )
    assert [each["traj_idx"] for each in metadata] == [0, 1, 2, 2]
    for trajectory in range(3):
        rows = [row for row, each in enumerate(metadata) if each["traj_idx"] == trajectory]
        found, old, scores = [], [], []
        for row in rows:
            inputs = data[row].loss_fn_inputs
            advantages, chosen = inputs["advantages"].to_numpy(), inputs["mask"].to_numpy() > 0
            assert advantages.dtype == np.float32
            assert advantages.shape == inputs["target_tokens"].to_numpy().shape
            assert (advantages[~chosen] == 0).all()
            ids = [*data[row].model_input.to_ints(), int(inputs["target_tokens"].to_numpy()[-1])]
            deviation = compute_deviation(policy.score(ids), reference.score(ids))
            found, old = [*found, *advantages[chosen]], [*old, *before[row][chosen]]
            scores = [*scores, *np.exp(deviation[chosen] / 0.05)]
        # The weights of a trajectory average 1, so its advantages keep the mean that the cookbook gave them.
        np.testing.assert_allclose(np.mean(found), np.mean(old), atol=1e-6)
        assert np.ptp(found) > 1e-3
        if top_k == VOCABULARY:  # the bounds meet
            np.testing.assert_allclose(found, np.array(old) * scores / np.mean(scores), rtol=2e-3)
    assert metrics["credit/deviation_lower"] <= metrics["credit/deviation_upper"] + 1e-6


def test_tinkers_rewards_count_without_tokens_too(cookbook):
    policy = Model(RANDOM.normal(size=(VOCABULARY, VOCABULARY)))
    groups, data, metadata = make_trajectories(policy)
    before = [datum.loss_fn_inputs["advantages"].to_numpy().copy() for datum in data]
    asyncio.run(cookbook.assign_credit(data, metadata, groups, policy))
    assert len(data) == 4
    for datum, old in zip(data, before, strict=True):
        np.testing.assert_allclose(datum.loss_fn_inputs["advantages"].to_numpy(), old, atol=1e-6)


def test_top_k_needs_the_client_that_sampled(cookbook):
    with pytest.raises(ValueError, match="pass policy"):
        asyncio.run(cookbook.assign_credit([], [], [], None, top_k=4))
