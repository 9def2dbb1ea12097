"""TRL's GRPO settings, extended by those of credit."""

from dataclasses import dataclass, field
from typing import Any

from trl import GRPOConfig, GRPOTrainer

import credit
from credit.adapters.record_settings import check_count, check_record_settings
from credit.adapters.trl import recipes
from credit.adapters.trl.unsloth import refuse_late_import

SAMPLING = ("none", "filter", "resample")


@dataclass
class CreditGRPOConfig(GRPOConfig):
    """GRPOConfig with the estimator and what belongs to it, from Python, YAML or the command line.

    An unknown name or a wrong setting raises ValueError here, before any model is loaded.
    """

    _VALID_DICT_FIELDS = [*GRPOConfig._VALID_DICT_FIELDS, "advantage_estimator_kwargs"]

    advantage_estimator: str | None = field(
        default=None,
        metadata={
            "help": "Estimator of the advantages: one of credit.names(), such as `dgpo`, `grpo` or `dapo`. "
            "Not set: TRL's own advantages."
        },
    )
    advantage_estimator_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Settings of the estimator, such as `{tau: 0.1}` in YAML or '{\"tau\": 0.1}' on the "
            "command line; `preset: trl` gives the constants of TRL's own GRPO."
        },
    )
    recipe: str | None = field(
        default=None,
        metadata={
            "help": "`dapo`: the whole of its paper (estimator, token-level loss, epsilon_high 0.28, "
            "resampling, truncated completions masked, overlong penalty). Options that you set stay yours."
        },
    )
    dynamic_sampling: str | None = field(
        default=None,
        metadata={
            "help": "What happens to groups whose rewards are all equal: `none` (they train), `filter` (they "
            "leave the loss and its normalizer) or `resample` (prompts are drawn until the batch is full of "
            "others). Not set: the estimator decides; `dapo` filters."
        },
    )
    dynamic_sampling_reward: str | None = field(
        default=None,
        metadata={
            "help": "The reward function, by the name that TRL logs, whose rewards alone decide which groups "
            "are left out, or `total`, the weighted sum. Not set: the total, and with an estimator that gets "
            "the rewards one by one any of them."
        },
    )
    max_sampling_rounds: int = field(
        default=10,
        metadata={"help": "Generations per batch at most, with `dynamic_sampling: resample`."},
    )
    overlong_cache_length: int | None = field(
        default=None,
        metadata={
            "help": "Tokens before overlong_max_length over which DAPO's overlong penalty falls from 0 to "
            "-1. Not set, or 0: no penalty."
        },
    )
    overlong_max_length: int | None = field(
        default=None,
        metadata={"help": "Tokens from which on the overlong penalty is -1. Not set: max_completion_length."},
    )
    mask_truncated_completions: bool | None = field(
        default=None,
        metadata={"help": "Truncated completions are left out of the loss. Not set: the recipe's, or false."},
    )
    reweight_with_current_policy: bool = field(
        default=False,
        metadata={
            "help": "Computes the weights of tokens anew for every step on a batch after its first. Costs a "
            "forward of the policy, and of the reference, per micro-batch."
        },
    )
    record_steps: int | None = field(
        default=None,
        metadata={
            "help": "Writes completions with the credit of each token every so many steps, and shows them as "
            "credit/lens in those of W&B, trackio and TensorBoard that report_to names. Not set: never."
        },
    )
    record_completions: int = field(
        default=16,
        metadata={"help": "Completions per write at most, in whole groups; one group at least."},
    )
    record_path: str | None = field(
        default=None,
        metadata={"help": "The file for them, JSON lines. Not set: credit.jsonl in output_dir."},
    )
    statistics_memory_mb: float | None = field(
        default=None,
        metadata={
            "help": "Megabytes (10^6 bytes) that scoring sampled tokens may take beside the models: sets how "
            "many rows policy and reference are run on at a time, at least one, where TRL runs neither, and "
            "how many hidden states of TRL's own forwards stay on the device. Not set: a quarter of what is "
            "free on a GPU, 256 elsewhere."
        },
    )

    def __post_init__(self) -> None:
        refuse_late_import(GRPOTrainer)
        recipes.fill_options(self)
        self.mask_truncated_completions = bool(self.mask_truncated_completions)
        super().__post_init__()
        parse_estimator(self)
        _check_settings(self)


def parse_estimator(args: Any) -> credit.Estimator | None:
    """The estimator that a GRPOTrainer's arguments name, or None; an error if they name it wrongly."""
    found = read_estimator(args)
    if found is not None and not isinstance(args, CreditGRPOConfig):
        raise TypeError(f"advantage_estimator goes with CreditGRPOConfig; args is a {type(args).__name__}")
    return found


def read_estimator(args: Any) -> credit.Estimator | None:
    """The estimator that a config names, or None; a ValueError if it names it wrongly."""
    name = getattr(args, "advantage_estimator", None)
    settings = getattr(args, "advantage_estimator_kwargs", None) or {}
    if name is None:
        if settings:
            raise ValueError("advantage_estimator_kwargs is set, but advantage_estimator is not")
        return None
    if "name" in settings:
        raise ValueError("advantage_estimator_kwargs has a name; the name goes to advantage_estimator")
    return credit.parse({"name": name, **settings})


def _check_settings(args: CreditGRPOConfig) -> None:
    """Raises ValueError for a setting of credit's that is wrong whatever the estimator is."""
    if args.advantage_estimator is None:
        for name in (
            "dynamic_sampling",
            "dynamic_sampling_reward",
            "reweight_with_current_policy",
            "record_steps",
            "record_path",
        ):
            if getattr(args, name):
                raise ValueError(f"{name} is set, but advantage_estimator is not")
    if args.dynamic_sampling not in (None, *SAMPLING):
        raise ValueError(f"dynamic_sampling is {args.dynamic_sampling!r}; expected {', '.join(SAMPLING)}")
    if args.statistics_memory_mb is not None and not args.statistics_memory_mb > 0:
        raise ValueError(f"statistics_memory_mb is {args.statistics_memory_mb}; expected a positive number")
    check_count("max_sampling_rounds", args.max_sampling_rounds)
    check_record_settings(vars(args))
    if args.overlong_cache_length:
        _check_overlong(args, args.overlong_cache_length, recipes.overlong_length(args))
    elif args.overlong_max_length:
        raise ValueError("overlong_max_length is set, but overlong_cache_length is not")


def _check_overlong(args: CreditGRPOConfig, cache_length: int, longest: int) -> None:
    if not 1 <= cache_length <= longest:
        raise ValueError(f"overlong_cache_length is {cache_length}; expected 1..{longest}")
    free = longest - cache_length
    if args.max_completion_length is not None and free >= args.max_completion_length:
        raise ValueError(
            f"the overlong penalty begins after {free} tokens, which no completion exceeds "
            f"(max_completion_length={args.max_completion_length}); lower overlong_max_length"
        )
