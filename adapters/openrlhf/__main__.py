"""OpenRLHF's training command with credit's estimators: python -m credit.adapters.openrlhf <its flags>"""

import argparse
import runpy
from collections.abc import Sequence

import ray
from openrlhf.trainer.ray import ppo_actor

from credit.adapters.openrlhf import flags, ray_start
from credit.adapters.openrlhf.worker import CreditPolicyModelActor


def main() -> None:
    """Runs openrlhf.cli.train_ppo_ray, whose parser cannot be imported, with credit's flags and classes."""
    ray_start.refuse_running_ray()
    parse_args = flags.with_credit_flags(argparse.ArgumentParser.parse_args, replace_in_workers)
    argparse.ArgumentParser.parse_args = parse_args  # type: ignore[method-assign]
    ppo_actor.PolicyModelActor = ray.remote(num_gpus=1)(CreditPolicyModelActor)
    runpy.run_module("openrlhf.cli.train_ppo_ray", run_name="__main__", alter_sys=True)


def replace_in_workers(plugins: Sequence[str]) -> None:
    """Makes OpenRLHF's call of ray.init start workers that use credit's classes and find the plugins."""
    ray.init = ray_start.with_worker_setup(ray.init, plugins)


if __name__ == "__main__":
    main()
