"""The example's stand-ins for a GPU and DeepSpeed's kernels do what the real ones do, and refuse what they refuse."""

import os
import pickle
import subprocess
import sys

import deepspeed_on_cpu  # noqa: F401  (before DeepSpeed's optimizers)
import gpu_on_cpu
import pytest
import torch
from deepspeed.ops.adam import DeepSpeedCPUAdam, FusedAdam
from torch.multiprocessing.reductions import reduce_tensor


@pytest.mark.parametrize(
    ("kind", "mode", "other"),
    [
        (FusedAdam, {"adam_w_mode": True}, torch.optim.AdamW),
        (FusedAdam, {"adam_w_mode": False}, torch.optim.Adam),
        (DeepSpeedCPUAdam, {"adamw_mode": True}, torch.optim.AdamW),
        (DeepSpeedCPUAdam, {"adamw_mode": False}, torch.optim.Adam),
    ],
)
def test_deepspeeds_optimizers_step_as_torchs(kind, mode, other):
    generator = torch.Generator().manual_seed(0)
    ours = [torch.randn(shape, generator=generator, requires_grad=True) for shape in ((5,), (2, 3))]
    theirs = [parameter.detach().clone().requires_grad_() for parameter in ours]
    settings = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    steps = kind(ours, **settings, **mode), other(theirs, **settings)
    for _ in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        for optimizer in steps:
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


OPEN = """
import pickle, sys
function, args = pickle.load(sys.stdin.buffer)
tensor = function(*args[:6], 0)  # the seventh argument becomes the receiver's own device
print(tensor.tolist())
tensor.add_(1)
"""


def test_a_handle_is_the_senders_memory_and_not_a_copy():
    tensor = torch.arange(6.0).view(2, 3).bfloat16()
    function, args = reduce_tensor(tensor)
    done = subprocess.run(
        [sys.executable, "-c", OPEN],
        input=pickle.dumps((function, args)),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert done.stdout.decode().split("\n")[-2] == "[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]"
    assert tensor.tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    with pytest.raises(RuntimeError, match="the process that made it"):
        function(*args)


def test_a_handle_is_of_the_one_gpu_that_a_process_sees(monkeypatch):
    function, args = reduce_tensor(torch.zeros(2))
    monkeypatch.setattr(gpu_on_cpu.os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="device 1: Ray lets a process see one GPU"):
        function(*args[:6], 1)
