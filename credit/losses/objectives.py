"""The objectives by name. The keyword arguments of each are the settings of PolicyLoss that it reads."""

from collections.abc import Callable, Mapping
from inspect import signature

from credit.losses.clipped import cispo, clip, gmpo
from credit.losses.covariances import clip_cov, kl_cov
from credit.losses.divergences import dppo_kl, dppo_tv
from credit.losses.gates import sapo, vespo
from credit.losses.token_losses import TokenLosses

OBJECTIVES: Mapping[str, Callable[..., TokenLosses]] = {
    "clip": clip,
    "cispo": cispo,
    "sapo": sapo,
    "vespo": vespo,
    "gmpo": gmpo,
    "dppo_tv": dppo_tv,
    "dppo_kl": dppo_kl,
    "clip_cov": clip_cov,
    "kl_cov": kl_cov,
}

SETTINGS: Mapping[str, tuple[str, ...]] = {
    name: tuple(signature(function).parameters)[1:] for name, function in OBJECTIVES.items()
}
"""By objective, the settings that it reads: the others have no effect with it."""
