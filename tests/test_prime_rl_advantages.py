"""The example for prime-rl, in prime-rl's own algorithm classes; it runs where they are on the path.

git -C prime-rl apply .../examples/loops/prime_rl.patch    (commit 559b447, with the verifiers that it pins)
PYTHONPATH=prime-rl/src:prime-rl/packages/prime-rl-configs/src pytest -W default tests/test_prime_rl_advantages.py
"""

import asyncio
import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from sampled_tokens import BOUNDED_DEVIATION, RANDOM

import credit
from credit.estimators.base import CLASSES

ROOT = Path(__file__).parents[1]


@pytest.fixture
def algorithm(own_registry):
    """The example's algorithm, as prime-rl's patched checkout builds it from a config."""
    algo = pytest.importorskip("prime_rl.orchestrator.algo", reason="prime-rl is not in this environment")
    from pydantic import TypeAdapter

    CLASSES["bounded_deviation"] = BOUNDED_DEVIATION
    estimator = {"name": "bounded_deviation", "tau": 0.05, "base": "dr_grpo"}
    teacher = {"name": "reference", "base_url": "http://localhost:8001/v1"}
    given = {"type": "credit", "estimator": estimator, "teacher": teacher}
    config = TypeAdapter(import_module("prime_rl.configs.algorithm").AlgoConfig).validate_python(given)
    return algo.build_algorithm(config, None)


class Server:
    """The reference's server, which is remote: log-probs by the token, and 0 for the first."""

    async def score(self, token_ids):
        return [0.0, *(-0.5 - token % 7 for token in token_ids[1:])]


def make_episode(number, reward, turns):
    """An episode of verifiers: a prompt, and turns of sampled tokens after two tokens of scaffold each."""
    import verifiers.v1 as vf

    prompt = vf.MessageNode(message=vf.UserMessage(content="q"), token_ids=[1, 2], mask=[False] * 2)
    nodes = [prompt]
    for turn, length in enumerate(turns):
        sampled = {
            "mask": [False] * 2 + [True] * length,
            "logprobs": (-RANDOM.exponential(size=length)).tolist(),
        }
        ids = RANDOM.integers(0, 50, length + 2).tolist()
        message = vf.AssistantMessage(content="a")
        nodes.append(vf.MessageNode(message=message, sampled=True, parent=turn, token_ids=ids, **sampled))
    trace = vf.Trace[vf.TaskData](
        task=vf.TraceTask(type="Task", data=vf.TaskData(idx=0, prompt=None)),
        agent=vf.AgentInfo(config=vf.AgentConfig()),
        nodes=nodes,
        rewards={"reward": vf.Reward(score=reward)},
        ok=True,
    )
    return vf.Episode(
        env=vf.EnvInfo(id="e", name="e"), task=trace.task, group=vf.GroupInfo(id="g"), traces=[trace]
    )


def test_prime_rls_samples_get_advantages_of_their_tokens(algorithm):
    from prime_rl.orchestrator.trajectories import trace_to_samples

    rewards = [1.0, 0.0, 0.5]
    episodes = [make_episode(*each) for each in zip(range(3), rewards, [(4,), (3, 2), (1, 5)], strict=True)]
    algorithm.teacher_pool = Server()

    async def finalize():
        for episode in episodes:
            await algorithm.finalize_episode(episode)
        await algorithm.finalize_group(episodes)

    asyncio.run(finalize())
    for episode, reward in zip(episodes, rewards, strict=True):
        (sample,) = trace_to_samples(episode.traces[0])
        chosen = np.array(sample.mask)
        p, q = np.array(sample.logprobs)[chosen], -0.5 - np.array(sample.token_ids)[chosen] % 7
        scores = np.exp(credit.binary_deviation(p, q) / 0.05)
        expected = (reward - 0.5) * scores / scores.mean()
        np.testing.assert_allclose(np.array(sample.advantages)[chosen], expected, rtol=1e-5, atol=1e-7)
        assert not np.array(sample.advantages)[~chosen].any()


def test_a_trace_without_reference_log_probs_is_an_error(algorithm):
    with pytest.raises(ValueError, match="no reference log-probs"):
        asyncio.run(algorithm.finalize_group([make_episode(0, 1.0, (2,))]))


def test_the_patch_is_what_the_checkout_has(algorithm):
    configs = Path(import_module("prime_rl.configs.algorithm").__file__).parents[5]
    patch = ROOT / "examples/loops/prime_rl.patch"
    command = [shutil.which("git"), "apply", "--reverse", "--check", str(patch)]
    done = subprocess.run(command, cwd=configs, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
