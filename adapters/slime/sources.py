"""Where token statistics come from: slime's own two passes, or the hook before them; or why from nowhere."""

from typing import Any

import credit
from credit.adapters import fields
from credit.adapters.slime.hooks import FRAMEWORK
from credit.adapters.slime.settings import PACKAGE

LOG_PROBS = {"log_probs": "log_probs", "reference_log_probs": "ref_log_probs"}
"""Statistics that slime computes itself, and what its batches call them."""
ENTROPY = "normalized_entropy"
HOOK = "--custom-megatron-before-log-prob-hook-path"
WAY_OUT = (
    "set kl_coef to any number but 0 in the file of --custom-config-path, with which slime scores the batch "
    "with policy and reference (with a function for advantages its value has no other effect)"
)


def is_hooked(args: Any) -> bool:
    """Whether some function runs before slime's passes, which then is this adapter's."""
    return args.custom_megatron_before_log_prob_hook_path is not None


def list_scored(estimator: credit.Estimator, args: Any) -> tuple[str, ...]:
    """The statistics that are computed from hidden states, the logged ones among them."""
    needed = [name for name in fields.needed_statistics(estimator) if name not in LOG_PROBS]
    if not needed or not is_hooked(args):
        return ()
    return fields.add_logged(needed)


def describe(estimator: credit.Estimator, args: Any) -> str:
    """In words, for the line of log at start-up."""
    return "from the models' hidden states" if list_scored(estimator, args) else "from slime's own passes"


def refuse(estimator: credit.Estimator, args: Any) -> None:
    """Raises ValueError unless slime's passes can give the estimator what it reads."""
    needed = fields.needed_statistics(estimator)
    if not needed:
        return
    name, listed = FRAMEWORK.name_of(estimator), ", ".join(needed)
    if fields.needs_reference(estimator):
        _refuse_no_reference(name, listed, args)
    if not runs_policy(args):
        way_out = "leave out --use-rollout-logprobs" if args.use_rollout_logprobs else WAY_OUT
        raise ValueError(f"{name} needs {listed}, and slime skips the policy's pass; {way_out}")
    others = [each for each in needed if each not in LOG_PROBS]
    if is_hooked(args):
        _refuse_layouts(name, list_scored(estimator, args), args)
    elif others == [ENTROPY]:
        _refuse_entropy(name, args)
    elif others:
        raise ValueError(
            f"{name} needs {', '.join(others)}, which slime does not compute; set {HOOK} "
            f"{PACKAGE}.before_log_prob"
        )


def runs_policy(args: Any) -> bool:
    """Whether slime scores the batch with the policy before training, by the rules of its actor."""
    if args.use_rollout_logprobs:
        return bool(args.get_mismatch_metrics)
    steps = args.rollout_batch_size * args.n_samples_per_prompt // args.global_batch_size
    replays = args.use_routing_replay and not args.use_rollout_routing_replay
    return bool(
        steps != 1
        or args.loss_type != "policy_loss"
        or args.kl_coef != 0
        or args.get_mismatch_metrics
        or args.keep_old_actor
        or args.use_opd
        or replays
        or args.advantage_estimator == "gspo"
    )


def _refuse_no_reference(name: str, listed: str, args: Any) -> None:
    if args.kl_coef == 0 and not args.use_kl_loss:
        raise ValueError(f"{name} needs {listed}, and slime loads no reference; {WAY_OUT}")
    if args.ref_load is None:
        raise ValueError(f"{name} compares the policy with a reference; set --ref-load to its checkpoint")


def _refuse_entropy(name: str, args: Any) -> None:
    """slime's own entropy where it is not that of the model."""
    exact = f"{HOOK} {PACKAGE}.before_log_prob, which computes it from the hidden states"
    if not args.use_rollout_entropy:
        raise ValueError(f"{name} needs {ENTROPY}; set {exact}, or --use-rollout-entropy")
    if args.vocab_size is None:
        raise ValueError(
            f"{name} needs {ENTROPY}, and --vocab-size is not set, so that nobody can tell whether slime's "
            f"counts padding; set it, or {exact}"
        )
    if args.padded_vocab_size not in (None, args.vocab_size):
        raise ValueError(
            f"{name} needs {ENTROPY}, and slime's is over {args.padded_vocab_size} logits, of which "
            f"{args.padded_vocab_size - args.vocab_size} are padding; set {exact}"
        )


def _refuse_layouts(name: str, scored: tuple[str, ...], args: Any) -> None:
    """Ways to run in which the hook's statistics would not be those of the model that trains."""
    if not scored:
        return
    if args.rollout_top_p != 1.0:
        raise ValueError(
            f"--rollout-top-p {args.rollout_top_p} has slime train the policy within its nucleus, and the "
            f"statistics of {name} are those of the whole vocabulary; set it to 1"
        )
    if args.allgather_cp and args.context_parallel_size > 1:
        raise ValueError(
            f"--allgather-cp gives the ranks of context parallelism other parts of a batch than the "
            f"statistics of {name} are computed for; leave it out"
        )
    compares = set(scored) & set(fields.REFERENCE_FIELDS)
    if args.use_rollout_routing_replay and compares:
        raise ValueError(
            "--use-rollout-routing-replay runs the policy with the experts that the sampling engine chose "
            f"and the reference with its own, so that equal models would deviate in {name}; leave it out"
        )
