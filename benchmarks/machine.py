"""Prints the machine and the versions that everything else depends on; fails where torch finds no GPU."""

import os
import platform
import sys
from importlib import metadata

PACKAGES = (
    *("torch", "triton", "jax", "numpy", "transformers", "trl", "liger-kernel", "accelerate", "datasets"),
    *("pydantic", "pytest", "hypothesis"),
)


def find_version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def main() -> int:
    """A line for each fact."""
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores")
    for package in PACKAGES:
        print(f"{package} {find_version(package)}", flush=True)
    import torch  # only now, since it takes a while on a machine that has just started

    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        capability = f"{facts.major}.{facts.minor}"
        print(f"{facts.name}, compute capability {capability}, {facts.total_memory / 1e9:.0f} GB")
    rehearsed = os.environ.get("TRITON_INTERPRET") == "1"
    return 0 if torch.cuda.is_available() or rehearsed else 1


if __name__ == "__main__":
    sys.exit(main())
