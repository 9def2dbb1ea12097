"""What the settings of a policy loss make of each other: errors where one has no effect, and a hint."""

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


def check_effects(loss: Any) -> None:
    """For a PolicyLoss: a ValueError for a setting without effect, a warning for clips that never act."""
    reads, others = SETTINGS[loss.objective], sorted({name for read in SETTINGS.values() for name in read})
    unbounded = loss.aggregation != "fixed_horizon"
    reasons = {
        **{name: None if name in reads else f"with objective={loss.objective!r}" for name in others},
        "horizon": f"with aggregation={loss.aggregation!r}" if unbounded else None,
        "kl": None if loss.kl_coefficient else "without kl_coefficient",
    }
    refuse_without_effect(loss, reasons)
    clips = {"clip_low": loss.clip_low, "clip_high": loss.clip_high}
    left = [name for name, clip in clips.items() if clip == TOKEN_CLIP and name not in loss.model_fields_set]
    if loss.ratio == "sequence" and left:
        warn_once("sequence clips", SEQUENCE_CLIPS, stacklevel=4)
