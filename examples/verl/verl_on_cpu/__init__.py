"""Lets verl 0.9 run whole on a CPU, for examples and tests: VERL_USE_EXTERNAL_MODULES=verl_on_cpu

verl asks for an accelerator and for vLLM or SGLang. This package registers a platform and an FSDP2
engine for the CPU, a rollout server that samples with Hugging Face, and a way for weights to servers of
their own. Trainer, agent loop, reward loop, TransferQueue, workers and FSDP2 stay verl's own.
"""

from importlib import import_module

# In this order: verl's engine asks for the device when it is imported.
for part in ("platform", "engine", "rollout", "checkpoint"):
    import_module(f"verl_on_cpu.{part}")
