"""OpenRLHF's options that do nothing beside an estimator: refused where they would mislead, else one line."""

import logging
from collections.abc import Iterator, Mapping, Set
from typing import Any

from credit.adapters import rules
from credit.adapters.openrlhf.settings import Choice

IS_CORRECTION = "algo.advantage.is_correction_"
CORRECTED = (f"{IS_CORRECTION}level", f"{IS_CORRECTION}enable")  # the second before 0.11.2

logger = logging.getLogger("credit")


def list_given(parsed: Mapping[str, Any], defaults: Mapping[str, Any]) -> frozenset[str]:
    """The options by their names without dashes that have another value than by default."""
    return frozenset(
        name for name, value in parsed.items() if name in defaults and _plain(value) != _plain(defaults[name])
    )


def refuse(choice: Choice, args: Any, given: Set[str]) -> None:
    """Raises ValueError for what would train otherwise than it says, or fail at the first batch."""
    name = choice.estimator.name
    for option, setting in (("algo.advantage.gamma", "gamma"), ("algo.advantage.lambd", "lam")):
        if option in given:
            way_out = f"set --credit.{setting}" if hasattr(choice.estimator, setting) else "leave it out"
            reason = "takes its settings from --credit.*"
            raise rules.no_effect_error(f"--{option}", name, reason, way_out)
    if not choice.trains_critic:
        for option, meaning in (
            ("critic.model_name_or_path", ""),
            ("critic.save_value_network", ""),
            ("critic.freezing_steps", " and the actor would stand still for those steps"),
        ):
            if option in given:
                reason = f"trains no critic{meaning and ','}{meaning}"
                raise rules.no_effect_error(
                    f"--{option}", name, reason, "leave it out, or use credit_gae, which has a critic"
                )
    _refuse_temperature(args.rollout.temperature)
    _refuse_penalties(args)


def report(choice: Choice, args: Any, given: Set[str]) -> None:
    """Logs one line that lists the options without effect, and one of a second reference."""
    unused = [
        f"{', '.join(f'--{name}' for name in sorted(names))} ({reason})"
        for reason, names in _list_unused(choice, args, given)
        if names
    ]
    if unused:
        logger.warning("without effect with %s: %s", choice.estimator.name, "; ".join(unused))
    kl = args.algo.kl
    if choice.compares and kl.use_loss and kl.init_coef > 0:
        twice = "weights and forward pass" if choice.loads_reference(args.ds.lora.rank) else "forward pass"
        logger.warning(
            "--algo.kl.use_loss with --algo.kl.init_coef %g runs OpenRLHF's reference for a KL term in the "
            "loss, beside the one that %s runs in the policy's workers, so that a reference's %s are paid "
            "for twice; --algo.kl.init_coef 0 leaves OpenRLHF's out, with its KL term",
            *(kl.init_coef, choice.estimator.name, twice),
        )


def _list_unused(choice: Choice, args: Any, given: Set[str]) -> Iterator[tuple[str, Set[str]]]:
    """Reasons, and the options that are given and do nothing for that reason."""
    kl, critic, own = args.algo.kl, choice.trains_critic, choice.loads_reference(args.ds.lora.rank)
    scored = bool(args.reward.remote_url or args.train.agent_func_path)
    if not critic:
        found = {name for name in given if name.startswith("critic.")}
        yield "no critic is trained", found | given & {"train.colocate_critic_reward"}
    if args.train.agent_func_path:
        yield "the agent gives the rewards", given & {"reward.remote_url"}
    if scored:
        model = {"reward.model_name_or_path", "reward.offload"}
        of_both = {"reward.normalize_enable", "reward.num_nodes", "reward.num_gpus_per_node"}
        yield "no reward model runs", given & (model if critic else model | of_both)
    if kl.init_coef <= 0:
        gone = {
            f"algo.kl.{name}" for name in ("use_loss", "estimator", "unbiased_gradient", "target", "horizon")
        }
        placed = {"ref.num_nodes", "ref.num_gpus_per_node"}
        idle = placed if own else placed | {"ref.offload"}
        yield "--algo.kl.init_coef is 0", given & (gone | idle)
    elif not kl.target:
        yield "--algo.kl.target is not set", given & {"algo.kl.horizon"}
    if args.reward.overlong_buffer_len is None:
        yield "--reward.overlong_buffer_len is not set", given & {"reward.overlong_penalty_factor"}
    elif args.reward.overlong_buffer_len <= 0:
        yield "a buffer of no tokens", {"reward.overlong_buffer_len"}
    if not args.algo.dynamic_filtering_enable:
        yield "--algo.dynamic_filtering_enable is not set", given & {"algo.dynamic_filtering_range"}
    corrections = {name for name in given if name.startswith(IS_CORRECTION)} - set(CORRECTED)
    if not given & set(CORRECTED):
        yield f"--{CORRECTED[0]} is off", corrections
    elif args.actor.policy_loss_type == "gspo":  # takes the ratio to the sampler, and filters nothing
        yield "--actor.policy_loss_type is gspo", corrections
    yield "it changes no setting", given & {"credit.preset"}
    if "actor.eps_clip_low_high" in given:
        yield "--actor.eps_clip_low_high is set", given & {"actor.eps_clip"}


def _refuse_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(
            f"--rollout.temperature {temperature:g} makes all responses to a prompt equal, and OpenRLHF's "
            "models divide their logits by it; set a temperature above 0"
        )


def _refuse_penalties(args: Any) -> None:
    """OpenRLHF asserts both at the first batch, after the models are loaded and responses sampled."""
    buffer, penalty = args.reward.overlong_buffer_len, args.reward.stop_properly_penalty_coef
    longest = args.rollout.max_new_tokens
    option = "--rollout.max_new_tokens" if longest else "--data.max_len"
    longest = longest or args.data.max_len
    if buffer is not None and buffer > longest:
        raise ValueError(
            f"--reward.overlong_buffer_len {buffer:g} is the part of {option} {longest} in which the penalty "
            f"grows, and cannot be longer; set it to less than {longest}"
        )
    if penalty is not None and penalty > 1:
        raise ValueError(
            f"--reward.stop_properly_penalty_coef {penalty:g} would raise the reward of truncated responses; "
            "set a factor in 0..1, or a negative reward for them"
        )


def _plain(value: Any) -> Any:
    """Values as flags give them and as defaults are written: a tuple is a list there, and 0 is 0.0."""
    return list(value) if isinstance(value, tuple) else value
