"""Imports Unsloth, so that it replaces TRL's trainer as on a GPU. A module that needs that imports this one first."""

import os

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "UNSLOTH_ALLOW_CPU": "1",  # its own switch for tests: imports as on a GPU, but leaves TRL's trainer as it is
    "UNSLOTH_MIXED_PRECISION": "bfloat16",  # its name for no autocast
    # A model of transformers does not keep packed rows apart, as those that Unsloth loads do.
    "UNSLOTH_GRPO_SEQ_PACKING": "0",
    "UNSLOTH_GRPO_PREFIX_GROUPER": "0",
}

import unsloth  # noqa: F401
from unsloth.models.rl import PatchFastRL

del os.environ["UNSLOTH_ALLOW_CPU"]
PatchFastRL()
