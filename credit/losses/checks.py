"""What the settings of a policy loss make of each other: errors where one has no effect, and hints."""

from collections.abc import Mapping
from typing import Any

from credit.hints import warn_once
from credit.losses.objectives import SETTINGS
from credit.settings import refuse_without_effect

TOKEN_CLIP = 0.2  # PolicyLoss's default, which is PPO's
SEQUENCE_CLIPS = (
    'ratio="sequence" is left with a clip of 0.2, which is made for the ratio of a token. The mean over a '
    "response stays so near 1 that such a clip never acts; the GSPO paper (arXiv 2507.18071) has "
    "clip_low=3e-4 and clip_high=4e-4. Set both to choose"
)
OBJECTIVE_CLIPS = {
    "gmpo": 'objective="gmpo" is left with a clip of 0.2, which is made for a ratio. GMPO clips log-ratios, '
    "and its paper (arXiv 2507.20673) has clip_low=0.4 and clip_high=0.4. Set both to choose",
    "dppo_kl": 'objective="dppo_kl" is left with a clip of 0.2, which is made for a ratio. It bounds a KL '
    "divergence here, and the authors of DPPO (arXiv 2602.04879) have clip_low=0.05 and clip_high=0.05. "
    "Set both to choose",
}


def find_ineffective(loss: Any) -> Mapping[str, str | None]:
    """For a PolicyLoss: its settings that others may make meaningless, and by which, None: by none."""
    reads, others = SETTINGS[loss.objective], sorted({name for read in SETTINGS.values() for name in read})
    unread = f"with objective={loss.objective!r}"
    unweighted = None if loss.rollout_cap is not None else "without rollout_cap"
    bounded = loss.aggregation == "fixed_horizon"
    return {
        **{name: None if name in reads else unread for name in others},
        "horizon": None if bounded else f"with aggregation={loss.aggregation!r}",
        "kl": None if loss.kl_coefficient else "without kl_coefficient",
        **dict.fromkeys(("rollout_floor", "rollout_rule", "rollout_level"), unweighted),
    }


def check_effects(loss: Any) -> None:
    """For a PolicyLoss: a ValueError for settings without effect, a warning for clips that mislead."""
    reasons = find_ineffective(loss)
    refuse_without_effect(loss, reasons)
    _check_orders(loss)
    clips = {name: getattr(loss, name) for name in ("clip_low", "clip_high") if reasons[name] is None}
    left = [name for name, clip in clips.items() if clip == TOKEN_CLIP and name not in loss.model_fields_set]
    if loss.ratio == "sequence" and left:
        warn_once("sequence clips", SEQUENCE_CLIPS, stacklevel=4)
    elif loss.objective in OBJECTIVE_CLIPS and left:
        warn_once(f"{loss.objective} clips", OBJECTIVE_CLIPS[loss.objective], stacklevel=4)


def _check_orders(loss: Any) -> None:
    pairs = [("covariance_low", "covariance_high")]
    pairs += [("rollout_floor", "rollout_cap")] if loss.rollout_floor is not None else []
    for low, high in pairs:
        if getattr(loss, low) >= getattr(loss, high):
            raise ValueError(
                f"{low}={getattr(loss, low):g} is not below {high}={getattr(loss, high):g}; lower the one or "
                "raise the other"
            )
