"""An algorithm for prime-rl (0.8) that takes its advantages per token from an estimator of credit.

prime-rl has no option that loads an algorithm of yours: its algorithms are classes in its checkout. So its
checkout is patched, and finds this file on the path:

    cd prime-rl && git apply .../examples/loops/prime_rl.patch
    export PYTHONPATH=.../examples/loops

and in the run's TOML:

    [orchestrator.algo]
    type = "credit"
    estimator = { name = "bounded_deviation", tau = 0.1, base = "dr_grpo" }

    [orchestrator.algo.teacher]    # the frozen reference, on a vLLM server of its own
    name = "Qwen/Qwen3-0.6B"
    base_url = "http://localhost:8001/v1"

The orchestrator has the log-prob of each sampled token and no logits. So the deviation is bounded
(sampled_log_probs.py), and entropy is not known.
"""

import numpy as np
import sampled_log_probs
import verifiers.v1 as vf
from prime_rl.orchestrator.algo.base import iter_trainable_traces
from prime_rl.orchestrator.algo.opd import OPDAlgorithm
from prime_rl.orchestrator.algo.routing import assign_advantages
from prime_rl.utils.logger import get_logger

import credit


class CreditAlgorithm(OPDAlgorithm):
    """As `opd` it asks the reference about every sampled token; what it makes of that are advantages."""

    action_loss_type = "rl"

    def __init__(self, config, policy_pool) -> None:
        super().__init__(config, policy_pool)
        self.estimator = credit.parse(config.estimator)

    async def score_group(self, episodes: list[vf.Episode]) -> None:
        """Assigns one advantage per sampled token to each trace of a group."""
        traces = [trace for _, trace in iter_trainable_traces(episodes)]
        responses = [read_trace(trace) for trace in traces]
        # prime-rl calls this once per group, so all traces are of one group.
        rollouts = sampled_log_probs.make_rollouts(
            [trace.reward for trace in traces], [0] * len(traces), responses
        )
        result = self.estimator(rollouts)
        for trace, advantages, mask in zip(traces, result.advantages, rollouts.mask, strict=True):
            assign_advantages(trace, advantages[mask].tolist())
        found = sampled_log_probs.describe(rollouts, result, self.estimator)
        get_logger().info(" ".join(f"{name}={value:.4f}" for name, value in found.items()))


def read_trace(trace: vf.Trace) -> sampled_log_probs.Response:
    """The sampled tokens of a trace in the order of its nodes, as `assign_advantages` counts them.

    Between two turns stands one position outside the mask, so that turns are told apart.
    """
    mask, log_probs, reference = [], [], []
    for node in trace.nodes:
        if any(node.mask):
            if node.reference_logprobs is None:
                raise ValueError(
                    f"a node of trace {trace.id} has no reference log-probs; score_episode sets them"
                )
            mask += [False] + [True] * len(node.logprobs)
            log_probs += [0.0, *node.logprobs]
            reference += [0.0, *node.reference_logprobs]
    return sampled_log_probs.Response(np.array(mask), log_probs, reference)
