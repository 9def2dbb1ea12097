"""TRL's GRPO script with an estimator: python -m credit.adapters.trl --config run.yaml"""

import trl
from trl import DatasetMixtureConfig, ModelConfig, TrlParser
from trl.scripts import grpo

from credit.adapters.trl import CreditGRPOConfig, CreditGRPOTrainer


def main() -> None:
    """Reads the flags and YAML of `trl grpo`, and advantage_estimator with its kwargs, and trains."""
    kinds = (grpo.GRPOScriptArguments, CreditGRPOConfig, ModelConfig, DatasetMixtureConfig)
    parser = TrlParser(kinds, prog="python -m credit.adapters.trl")
    arguments = parser.parse_args_and_config()
    trl.GRPOTrainer = CreditGRPOTrainer  # grpo.main() imports it by this name when it is called
    grpo.main(*arguments)


if __name__ == "__main__":
    main()
