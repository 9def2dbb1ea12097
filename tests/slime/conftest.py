"""slime's functions on a CPU: those of a checkout, or what stands in for them.

No package index has slime. With SLIME_CHECKOUT, the folder of a checkout, and MEGATRON_CHECKOUT, one of the
Megatron-LM that slime's Dockerfile names, all tests run slime's own functions; else those of
examples/slime/stand_in. Megatron-LM imports six, triton and wandb as well.
"""

import os
import re
import sys
from pathlib import Path

import pytest

os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
STAND_IN = Path(__file__).parents[2] / "examples/slime/stand_in"

pytest.importorskip("megatron.core", reason="megatron-core is not installed")


def use_checkout(folder, megatron, metadata):
    """Puts slime's and Megatron-LM's folders on the path, and metadata of that release, as pip would make it."""
    found = re.search(r'version="([^"]+)"', (Path(folder) / "setup.py").read_text())
    record = metadata / f"slime-{found[1]}.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: slime\nVersion: {found[1]}\n")
    sys.path[:0] = [str(folder), str(megatron), str(metadata)]


@pytest.fixture(scope="session", autouse=True)
def slime_on_path(tmp_path_factory):
    """Puts slime, or what stands in for it, on the path of this process and of those that it starts."""
    checkout = os.environ.get("SLIME_CHECKOUT")
    if checkout:
        use_checkout(checkout, os.environ["MEGATRON_CHECKOUT"], tmp_path_factory.mktemp("metadata"))
    else:
        sys.path.insert(0, str(STAND_IN))


@pytest.fixture(scope="session")
def megatron(slime_on_path):
    """One process as the only rank of everything."""
    import torch
    from on_cpu import start_megatron

    torch.set_num_threads(1)
    start_megatron()


@pytest.fixture(autouse=True)
def fresh_process():
    """Each test begins as a process of slime's does, which has called no function of credit's yet."""
    import slime_batch

    slime_batch.forget_process()
