"""A stand-in for flash-attn, of which OpenRLHF imports helpers for packed rows whatever the attention."""

# OpenRLHF's models import this package before anything asks for a device or an optimiser.
import deepspeed_on_cpu  # noqa: F401
import gpu_on_cpu  # noqa: F401

__version__ = "0.0.0"
