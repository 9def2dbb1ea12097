"""A stand-in for flash-attn, of which OpenRLHF imports helpers for packed rows whatever the attention."""

import gpu_on_cpu  # noqa: F401  (OpenRLHF's models import this package first)

__version__ = "0.0.0"
