"""What this package offers: `python -m credit` lists its commands and estimators."""

import argparse
import sys
from inspect import getdoc

import credit
from credit.estimators.registry import estimator_classes

COMMANDS = {
    "credit.check": "compare every estimator and backend here with float64 answers",
    "credit.lens": "show the credit of each token of completions, as a page or in the terminal",
    "credit.table": "print the table of estimators as Markdown",
    "credit.adapters.table": "print which estimator each framework can feed as Markdown",
    "credit.adapters.verl.coverage": "print what works with verl's engines and trainers (needs verl)",
    "credit.adapters.trl": "train with TRL's GRPO script and an estimator",
    "credit.adapters.openrlhf": "train with OpenRLHF's command and an estimator",
    "credit.adapters.skyrl": "train with SkyRL's command and an estimator",
}


def write_overview() -> str:
    """The commands, the estimators with a line about each, and where to read on."""
    commands = [f"  python -m {name:31}{text}" for name, text in COMMANDS.items()]
    estimators = [
        f"  {name:30}{(getdoc(kind) or '').partition(chr(10))[0]}"
        for name, kind in sorted(estimator_classes().items())
    ]
    return "\n".join(
        [
            "commands, each with a --help of its own:",
            *commands,
            "",
            "estimators, by the names that credit.get, credit.parse and the adapters accept:",
            *estimators,
            "",
            'In Python, credit.get("dgpo") or credit.DGPO() makes an estimator. help(credit.DGPO) explains',
            "its formula and settings, and help(credit.Rollouts) the arrays that an estimator reads.",
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    """Prints the overview, or the version; there are no other flags."""
    parser = argparse.ArgumentParser(
        "python -m credit",
        description=f"credit {credit.__version__}: {credit.__doc__ or ''}",
        epilog=write_overview(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=credit.__version__)
    parser.parse_args(arguments)
    parser.print_help()
    return 0


if __name__ == "__main__":
    sys.exit(main())
