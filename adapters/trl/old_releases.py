"""Options that an estimator's advantages per token cannot have in TRL's older releases."""

from importlib.metadata import version
from typing import Any

from packaging.version import Version


def refuse_options(args: Any) -> None:
    """Raises ValueError for a loss that takes one advantage per completion in the installed release."""
    release = Version(version("trl"))
    if args.loss_type == "luspo" and release < Version("1.10"):
        raise ValueError(
            f"loss_type='luspo' averages over padding in TRL {release}, which makes the loss of advantages "
            "per token too small; install TRL 1.10 or newer, or choose another loss_type"
        )
    if args.use_liger_kernel and release < Version("1.14"):
        raise ValueError(
            f"use_liger_kernel=True gives TRL {release} a loss that takes one advantage per completion; "
            "install TRL 1.14 or newer, or leave it out"
        )
