"""The memory for tiles of logits: the user's number, a share of what a GPU has free, or a fixed one."""

import pytest
import torch

from credit.adapters import memory

GPU = torch.device("cuda", 1)


@pytest.fixture
def free_bytes(monkeypatch):
    """A GPU of 80 GB with so much free, of whose other memory PyTorch has reserved 5 GB and uses 3 GB."""

    def say(amount):
        monkeypatch.setattr(
            torch.cuda, "mem_get_info", lambda device: {GPU: (int(amount), int(80e9))}[device]
        )
        monkeypatch.setattr(torch.cuda, "memory_reserved", {GPU: int(5e9)}.__getitem__)
        monkeypatch.setattr(torch.cuda, "memory_allocated", {GPU: int(3e9)}.__getitem__)

    return say


def test_a_gpu_gives_a_share_of_what_it_has_free(free_bytes):
    free_bytes(38e9)
    assert memory.find_budget(None, GPU) == 10_000.0
    free_bytes(0)
    assert memory.find_budget(None, GPU) == 500.0


def test_a_number_of_the_users_is_kept(free_bytes):
    free_bytes(38e9)
    assert memory.find_budget(64.0, GPU) == memory.find_budget(64.0, torch.device("cpu")) == 64.0


def test_without_a_gpu_it_is_fixed():
    assert memory.find_budget(None, torch.device("cpu")) == memory.BUDGET_MB
