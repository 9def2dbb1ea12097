"""Tunix as this adapter knows it: the supported releases and the functions that it overrides or calls."""

from credit.adapters.fields import STATISTICS
from credit.adapters.framework import Framework

FRAMEWORK = Framework(
    name="Tunix",
    distribution="google-tunix",
    supported=">=0.1.7,<0.2",
    provides=(*STATISTICS, "progress", "extra.token_ids"),
    given=("token_rewards",),
    extra="credit.adapters.tunix.log_extra, which a reward function calls, or a column of the data",
    group_size="num_generations",
    aggregations={
        "token-mean": "token_mean",
        "sequence-mean-token-mean": "sequence_mean",
        "seq-mean-token-sum": "sequence_sum",
        "sequence-mean-token-sum-norm": "sequence_sum",
        "sequence-mean-token-scale": "fixed_horizon",
    },
)

# Compared although the release is, since Tunix's main branch moves faster than its version.
FUNCTIONS = {
    "tunix.rl.grpo.grpo_learner:GRPOLearner": {
        "_generate_and_compute_advantage": "self training_input mode",
    },
    "tunix.rl.function_registry": {"register_advantage_estimator": "name"},
    "tunix.rl.common": {
        "process_ids": "prompt_tokens completion_tokens pad_id eos_id segment_ids segment_positions",
    },
}
