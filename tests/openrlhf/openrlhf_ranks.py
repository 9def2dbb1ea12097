"""OpenRLHF's strategy and models in the ranks of one job on gloo, for the scripts that tests start."""

import argparse
from types import SimpleNamespace

import flash_attn  # noqa: F401  (the stand-ins for a GPU come with it)
from openrlhf.models import Actor
from openrlhf.utils.deepspeed import DeepspeedStrategy

ADAM = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.0}
TRAINING = {"optim": "adam", "adam": ADAM, "muon": {}, "scheduler_steps": 10}


def parser():
    """The flags of a script."""
    made = argparse.ArgumentParser()
    made.add_argument("--model")
    made.add_argument("--reference")
    made.add_argument("--out")
    made.add_argument("--zero-stage", type=int, default=2)
    made.add_argument("--ring", type=int, default=1)
    made.add_argument("--tensor-parallel", type=int, default=1)
    return made


def start(given, dtype="bf16"):
    """The strategy, with its process groups."""
    ds = SimpleNamespace(
        param_dtype=dtype,
        zero_stage=given.zero_stage,
        ring_attn_size=given.ring,
        ring_attn_head_stride=1,
        tensor_parallel_size=given.tensor_parallel,
    )
    args = SimpleNamespace(
        ds=ds,
        train=SimpleNamespace(dynamic_batch_enable=False, colocate_all=False, async_enable=False),
        vllm=SimpleNamespace(sync_with_ray=False, enable_prefix_caching=False),
        local_rank=-1,
    )
    strategy = DeepspeedStrategy(
        micro_train_batch_size=1, train_batch_size=2, zero_stage=given.zero_stage, args=args
    )
    strategy.setup_distributed()
    return strategy


def load(strategy, path, train=False, **settings):
    """The Actor of that checkpoint, prepared as OpenRLHF's workers do."""
    config = strategy.get_ds_train_config() if train else strategy.get_ds_eval_config()
    dtype = strategy.args.ds.param_dtype
    settings = {"attn_implementation": "sdpa", "param_dtype": dtype, "ds_config": config} | settings
    return Actor(path, **settings)
