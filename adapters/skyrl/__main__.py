"""SkyRL's command with our estimators: python -m credit.adapters.skyrl trainer... generator..."""

import argparse

from credit.adapters.skyrl import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        "python -m credit.adapters.skyrl", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("option", nargs="*", help="SkyRL's, such as trainer.algorithm.credit.tau=0.1")
    parser.parse_args()
    main()
