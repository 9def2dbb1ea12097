"""OpenRLHF on a CPU, and its arguments as its own command makes them of flags."""

import argparse
import os
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

pytest.importorskip("openrlhf")
sys.path.insert(0, str(Path(__file__).parents[2] / "examples/openrlhf"))
sys.path.insert(0, str(Path(__file__).parents[2] / "examples/openrlhf/on_cpu"))  # flash-attn and vLLM

import openrlhf.utils
import ray
import torch
from openrlhf.utils import agent as theirs

from credit.adapters.openrlhf import flags, worker_setup
from credit.adapters.openrlhf.sampling import CreditSamplesGenerator

NEEDED = ["--actor.model_name_or_path", "a/model", "--reward.remote_url", "reward.py"]
NEEDED += ["--vllm.num_engines", "1", "--rollout.n_samples_per_prompt", "4", "--algo.kl.init_coef", "0"]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


class Parsed(Exception):
    """Ends OpenRLHF's command where it would start to train."""


@pytest.fixture
def chosen():
    """The modules of plugins, once an estimator of credit's was parsed."""
    return []


@pytest.fixture
def parse(monkeypatch, chosen):
    """The arguments that OpenRLHF's command makes of flags, after all of its and credit's checks."""

    def stop(args):
        raise Parsed(args)

    def run(*given, needed=NEEDED):
        chosen.clear()
        accepting = flags.with_credit_flags(
            argparse.ArgumentParser.parse_args, lambda modules: chosen.append(modules)
        )
        with monkeypatch.context() as patch:
            patch.setattr(argparse.ArgumentParser, "parse_args", accepting)
            patch.setattr(sys, "argv", ["train_ppo_ray", *needed, *map(str, given)])
            patch.setattr(ray, "is_initialized", lambda: True)
            patch.setattr(openrlhf.utils, "get_strategy", stop)
            with pytest.raises(Parsed) as parsed:
                runpy.run_module("openrlhf.cli.train_ppo_ray", run_name="__main__")
        args = parsed.value.args[0]
        assert bool(chosen) == (args.credit is not None)
        return args

    return run


@pytest.fixture
def recording(monkeypatch):
    """MultiTurnAgentExecutor as it is in a rollout worker of credit's, for one test."""
    monkeypatch.setattr(theirs.MultiTurnAgentExecutor, "execute", theirs.MultiTurnAgentExecutor.execute)
    worker_setup.keep_rewards_of_steps(theirs)


@pytest.fixture
def sampler(parse):
    def make(*flags):
        return CreditSamplesGenerator(SimpleNamespace(args=parse(*flags)), None, None, None, [])

    return make
