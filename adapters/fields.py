"""Fields of Rollouts as adapters see them: what takes a model's logits, and what a reference model."""

STATISTICS = ("log_probs", "reference_log_probs", "normalized_entropy", "deviation")
OF_THE_REFERENCE = ("reference_log_probs", "deviation")
PROVIDED = (*STATISTICS, "rollout_log_probs", "progress")
"""What both TRL's and verl's pipelines can fill in beside rewards, groups and mask."""
