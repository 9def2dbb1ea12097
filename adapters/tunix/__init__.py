"""Tunix: GRPO training in JAX whose advantages come from an estimator named in Tunix's own config."""

from credit.adapters import hooks

SUPPORTED = ">=0.1.7,<0.2"
hooks.check_version("google-tunix", SUPPORTED)

from tunix.rl import common, function_registry  # noqa: E402
from tunix.rl.grpo.grpo_learner import GRPOLearner  # noqa: E402

from credit.adapters.tunix.registry import register_estimators  # noqa: E402
from credit.adapters.tunix.settings import CreditGRPOConfig  # noqa: E402
from credit.adapters.tunix.trainer import CreditGRPOLearner  # noqa: E402

# Tunix's main branch moves faster than its version.
_IDS = ("prompt_tokens", "completion_tokens", "pad_id", "eos_id", "segment_ids", "segment_positions")
_HOOKS = (
    (GRPOLearner, "_generate_and_compute_advantage", "self", "training_input", "mode"),
    (function_registry, "register_advantage_estimator", "name"),
    (common, "process_ids", *_IDS),
)
for _hook in _HOOKS:
    hooks.check_signature("google-tunix", *_hook)
register_estimators()

__all__ = ["CreditGRPOConfig", "CreditGRPOLearner", "register"]
