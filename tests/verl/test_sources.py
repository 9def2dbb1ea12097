"""What the line of log at the start says of the source of statistics."""

import pytest

from credit.adapters.verl import checks, sources

DGPO = ["algorithm.adv_estimator=credit_dgpo", "+algorithm.credit.divergence=binary"]
USES_KL = "actor_rollout_ref.actor.use_kl_loss=True"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["algorithm.adv_estimator=credit_top_entropy"], "from verl's own entropy"),
        ([*DGPO, USES_KL], "from verl's own log-probs of sampled tokens and entropy"),
        ([*DGPO, USES_KL, "+algorithm.credit.kappa=0"], "from verl's own log-probs of sampled tokens"),
        (["algorithm.adv_estimator=credit_delightful"], "from verl's own log-probs of sampled tokens"),
        (["algorithm.adv_estimator=credit_grpo"], ""),
    ],
)
def test_the_passes_are_named_that_are_read(configured, overrides, said):
    mode = sources.find_v1_mode("sync", computes_statistics=False)
    assert sources.describe(checks.check_config(configured(*overrides), mode)) == said
