"""DeepSpeed on a CPU without the parts of it that have to be compiled first.

Its optimizers are its own classes, with their checks; only the kernels that they load are written in torch.
"""

import types
from typing import Any

import deepspeed
import torch
from deepspeed.ops.adam import cpu_adam, fused_adam
from deepspeed.runtime.zero.partition_parameters import Init

Tensor = torch.Tensor


def update(
    parameter: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    step: int,
    decoupled: bool,
    corrected: bool,
    decay: float,
) -> None:
    """One step of Adam, or of AdamW if the weight decay is decoupled, in place."""
    value, grad = parameter.float(), gradient.float()
    if not decoupled:
        grad = grad + decay * value
    mean.lerp_(grad.to(mean.dtype), 1 - betas[0])
    square.mul_(betas[1]).add_((grad * grad).to(square.dtype), alpha=1 - betas[1])
    bias = [1 - beta**step if corrected else 1.0 for beta in betas]
    change = (mean.float() / bias[0]) / ((square.float() / bias[1]).sqrt() + eps)
    if decoupled:
        change = change + decay * value
    parameter.copy_(value - lr * change)


@torch.no_grad()
def multi_tensor_adam(
    chunk: int,
    skip: Tensor,
    tensors: list[list[Tensor]],
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
    decoupled: int,
    corrected: int,
    decay: float,
) -> None:
    """FusedAdam's kernel, over lists of gradients, parameters, means and squares."""
    for gradient, parameter, mean, square in zip(*tensors, strict=True):
        update(
            *(parameter, gradient, mean, square),
            **{"lr": lr, "betas": (beta1, beta2), "eps": eps, "step": step},
            **{"decoupled": bool(decoupled), "corrected": bool(corrected), "decay": decay},
        )


class CPUAdam:
    """DeepSpeedCPUAdam's kernel; it keeps of each optimizer whether its weight decay is decoupled."""

    def __init__(self) -> None:
        self.decoupled: dict[int, bool] = {}

    def create_adam(self, number: int, *settings: Any) -> None:
        _, _, _, _, _, decoupled, _ = settings
        self.decoupled[number] = decoupled

    def destroy_adam(self, number: int) -> None:
        del self.decoupled[number]

    @torch.no_grad()
    def adam_update(
        self,
        number: int,
        step: int,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        decay: float,
        corrected: bool,
        *tensors: Tensor,
    ) -> None:
        update(
            *tensors,
            **{"lr": lr, "betas": (beta1, beta2), "eps": eps, "step": step},
            **{"decoupled": self.decoupled[number], "corrected": corrected, "decay": decay},
        )


def one_by_one(self: Init, parameters: Any, hierarchy: int = 0, quantize: bool = False) -> None:
    """Gathers ZeRO-3's parameters in turn: on gloo DeepSpeed waits for the last of several only."""
    self._allgather_params_sequential(parameters, hierarchy=hierarchy)


def builder(kernel: Any) -> Any:
    """What DeepSpeed asks for a compiled kernel."""
    return lambda: types.SimpleNamespace(load=lambda: kernel)


fused_adam.FusedAdamBuilder = builder(types.SimpleNamespace(multi_tensor_adam=multi_tensor_adam))
cpu_adam.CPUAdamBuilder = builder(CPUAdam())
Init._allgather_params_coalesced = one_by_one
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # gloo sends instead
