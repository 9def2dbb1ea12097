"""OpenRLHF's training command with credit's estimators: python -m credit.adapters.openrlhf <its flags>"""

import argparse
import runpy

import ray
from openrlhf.trainer.ray import ppo_actor

from credit.adapters.openrlhf import flags, workers
from credit.adapters.openrlhf.policy import CreditPolicyModelActor


def main() -> None:
    """Runs openrlhf.cli.train_ppo_ray, whose parser cannot be imported, with its names replaced."""
    workers.refuse_running_ray()
    argparse.ArgumentParser.parse_args = flags.accepting(
        argparse.ArgumentParser.parse_args, replace_in_workers
    )
    ppo_actor.PolicyModelActor = ray.remote(num_gpus=1)(CreditPolicyModelActor)
    runpy.run_module("openrlhf.cli.train_ppo_ray", run_name="__main__", alter_sys=True)


def replace_in_workers() -> None:
    """From here on OpenRLHF's own ray.init starts workers that use credit's classes."""
    ray.init = workers.with_hook(ray.init)


if __name__ == "__main__":
    main()
