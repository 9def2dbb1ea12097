"""Refusals that all adapters share: settings that cannot work with an estimator, before a model is loaded.

Each `refuse_...` raises ValueError with the estimator's name, the reason and the way out.
"""

from credit.adapters import traits
from credit.adapters.framework import Framework
from credit.estimators.base import Estimator
from credit.fields import EXTRA
from credit.types import FIELDS


def refuse_missing_fields(framework: Framework, estimator: Estimator) -> None:
    """The estimator reads an array of Rollouts that no batch of the framework can have."""
    missing = [name for name in estimator.required_fields if not framework.can_have(name)]
    if not missing:
        return
    name, way_out = framework.name_of(estimator), ""
    unknown = [each for each in missing if each not in FIELDS and not each.startswith(EXTRA)]
    if unknown and framework.extra:
        way_out = (
            f"; an array of your own is {EXTRA + unknown[0]!r} in needs and comes from {framework.extra}"
        )
    raise ValueError(f"{name} needs {', '.join(missing)}, which {framework.name} does not provide{way_out}")


def refuse_unrecorded_log_probs(framework: Framework, estimator: Estimator, recorded: bool) -> None:
    """The estimator reads the sampling engine's log-probs, and the framework does not record them."""
    if "rollout_log_probs" in estimator.required_fields and not recorded:
        raise ValueError(
            f"{framework.name_of(estimator)} needs rollout_log_probs, which {framework.name} does not record "
            f"with these settings; set {framework.rollout_log_probs}"
        )


def refuse_several_rewards(
    framework: Framework, estimator: Estimator, passed_on: str, way_out: str = ""
) -> None:
    """The estimator weighs several rewards, of which the framework passes on one number per response."""
    if traits.weighs_rewards(estimator):
        other = f"{framework.prefix}reinforce_plus_plus_baseline"
        raise ValueError(
            f"{framework.name_of(estimator)} weighs several rewards, but {framework.name} passes on "
            f"{passed_on}; use {way_out}another estimator, such as {other}"
        )


def refuse_weighing_parts(estimator: Estimator) -> None:
    """A part of the estimator weighs several rewards, of which the whole passes on one per response."""
    if traits.weighs_rewards(estimator) and traits.find_weigher(estimator) is None:
        raise ValueError(
            f"{estimator.name} passes on one reward per completion, but one of its parts weighs the rewards "
            "of several functions (gdpo); use that estimator alone"
        )


def refuse_filter_by(framework: Framework, estimator: Estimator, reason: str, way_out: str) -> None:
    """The estimator says which of several rewards decides about a group, and the framework cannot follow."""
    found = traits.find_filters(estimator)
    if found:
        option, name = f"filter_by={found[0]!r}", framework.name_of(estimator)
        raise ValueError(f"{option} of {name} has no effect in {framework.name}, {reason}; {way_out}")


def refuse_single_responses(framework: Framework, estimator: Estimator, group_size: int) -> None:
    """The estimator compares the responses to a prompt, and there is one response per prompt."""
    if group_size < 2 and not traits.learns_from_single_responses(estimator):
        raise ValueError(
            f"{framework.name_of(estimator)} compares the responses to a prompt, so with a single response "
            f"every advantage is 0; set {framework.group_size} to 2 or more"
        )


def refuse_one_ratio(framework: Framework, estimator: Estimator, option: str, way_out: str) -> None:
    """`option` gives a response one ratio, and the estimator gives its tokens different advantages."""
    if traits.differs_between_tokens(estimator):
        raise ValueError(
            f"{option} gives all tokens of a response one ratio, so the loss averages their advantages, "
            f"which cancels the token weights of {framework.name_of(estimator)}; {way_out}"
        )


def no_effect_error(option: str, name: str, reason: str, way_out: str = "leave it out") -> ValueError:
    """The error for an option that is set although the estimator `name` makes it meaningless."""
    return ValueError(f"{option} has no effect with {name}, which {reason}; {way_out}")
