"""TRL's GRPO script with an estimator: python -m credit.adapters.trl --config run.yaml"""

import trl
from trl import DatasetMixtureConfig, ModelConfig, TrlParser
from trl.scripts.grpo import GRPOScriptArguments, main

from credit.adapters.trl import CreditGRPOConfig, CreditGRPOTrainer


def run() -> None:
    """Reads the flags and YAML of `trl grpo`, and advantage_estimator with its kwargs, and trains."""
    kinds = (GRPOScriptArguments, CreditGRPOConfig, ModelConfig, DatasetMixtureConfig)
    parser = TrlParser(kinds, prog="python -m credit.adapters.trl")
    arguments = parser.parse_args_and_config()
    trl.GRPOTrainer = CreditGRPOTrainer  # main() imports it by this name when it is called
    main(*arguments)


if __name__ == "__main__":
    run()
