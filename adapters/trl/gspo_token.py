"""GSPO-token by TRL's own loss: one ratio per completion, and advantages of tokens.

With `importance_sampling_level="sequence"` TRL's loss has one ratio for a completion, by which the advantages
of its tokens are averaged. GSPO-token (arXiv 2507.18071, section 4.3) gives each token the value of that
ratio and the gradient of its own log-prob:

    rho_{i,t} = sg(exp(s_i)) p / sg(p),    s_i = mean_t(log p - log p_old)

This is the loss of the level "token" with sg(log p) - s_i in place of log p_old. What else that loss reads is
right, too: the off-policy mask averages log p - log p_old over a completion, which is s_i for both, and
`use_bias_correction_kl` multiplies the KL term of a token by rho_{i,t}.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import trl

from credit.adapters.trl import rollouts

Tensor = torch.Tensor
OLD = "old_per_token_logps"  # in TRL's batch, unless the policy that sampled is the one that is trained
UNAFFECTED = ("cispo", "vespo")
"""Values of loss_type that weigh the log-prob of each token by its own advantage, whatever the ratio."""
WAY_OUT = "set importance_sampling_level='token'"


def is_asked(args: Any) -> bool:
    """Whether the options ask for one ratio per completion where advantages of tokens need this loss."""
    return args.importance_sampling_level == "sequence" and args.loss_type not in UNAFFECTED


def find_refusal(own: type | None) -> str | None:
    """Why a loss of the class `own` cannot be GSPO-token; None: it is GRPOTrainer's, which can."""
    if own is None:
        return None
    return (
        "importance_sampling_level='sequence' with advantages of tokens (GSPO-token) is made of "
        f"GRPOTrainer's loss, and {own.__name__} has one of its own; {WAY_OUT}"
    )


def is_used(trainer: Any, inputs: dict[str, Any]) -> bool:
    """Whether the loss of this micro-batch is GSPO-token."""
    credited = trainer.credit.estimator is not None and is_asked(trainer.args)
    return bool(credited and inputs["advantages"].dim() == 2)


@contextmanager
def use_ratio_of_completions(trainer: Any, inputs: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Within it, TRL's loss of the yielded inputs is GSPO-token.

    The log-probs are known only within the loss, which computes them before it reads those of the policy
    that sampled: `replace_old_log_probs` is called in between.
    """
    level, given = trainer.importance_sampling_level, dict(inputs)
    trainer.importance_sampling_level = "token"
    trainer.credit.awaiting = given if given.get(OLD) is not None else None
    try:
        yield given
        if trainer.credit.awaiting is not None:
            raise RuntimeError(
                f"the loss of TRL {trl.__version__} did not call _get_per_token_logps_and_entropies, where "
                f"the ratios of completions are put together; {WAY_OUT}"
            )
    finally:
        trainer.importance_sampling_level, trainer.credit.awaiting = level, None


def replace_old_log_probs(trainer: Any, log_probs: Tensor) -> None:
    """Puts sg(log p) - s [B, T] into the inputs of the loss that waits for it, if one does."""
    given, trainer.credit.awaiting = trainer.credit.awaiting, None
    if given is None:
        return
    mask = rollouts.token_mask(given).bool()
    # In half precision the difference of log p and the result would be rounded by more than a clip range.
    new = log_probs.detach().to(torch.promote_types(log_probs.dtype, torch.float32))
    log_ratios = torch.where(mask, new - given[OLD], 0.0)
    given[OLD] = new - log_ratios.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
