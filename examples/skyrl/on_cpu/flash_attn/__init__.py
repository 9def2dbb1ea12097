"""A stand-in for flash-attn, of which SkyRL imports helpers for packed rows whatever the attention."""

# SkyRL's model, and transformers where it looks for flash-attn, import this package before a worker asks for
# a device.
import gpu_on_cpu  # noqa: F401
from transformers.utils import import_utils

__version__ = "0.0.0"
# transformers asks which distribution a package is from, and takes none but flash-attn's own for it.
import_utils.PACKAGE_DISTRIBUTION_MAPPING.setdefault("flash_attn", ["a stand-in"])
