"""The rows of the GPU table from hidden states: two heads' statistics, and log-probs with both gradients."""

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

import peers
import torch
from measurements import Case, Lazy, Report
from workloads import check

import credit

Tensor = torch.Tensor
ROWS = 2048  # of a tile of the bare matmuls
TRL_CHUNK = 32_768  # entries per tile, TRL's own default


def from_hidden(report: Report, case: Case, width: int) -> None:
    """Both heads of the given width; ratios are to the bare matmuls that nobody can do without."""
    hidden = torch.randn(case.tokens, width, dtype=case.kind, device=report.device)
    head = torch.randn(case.vocabulary, width, dtype=case.kind, device=report.device) / math.sqrt(width)
    ids = torch.randint(case.vocabulary, (case.tokens,), device=report.device)
    other = (hidden.float() + 0.1 * torch.randn(hidden.shape, device=report.device)).to(case.kind)
    forward(report, case, hidden, other, head, ids)
    training(report, case, hidden, head, ids)


def forward(report: Report, case: Case, hidden: Tensor, other: Tensor, head: Tensor, ids: Tensor) -> None:
    """The statistics of two models."""

    def matmuls() -> None:
        for side in (hidden, other):
            for start in range(0, case.tokens, ROWS):
                torch.mm(side[start : start + ROWS], head.t())

    def statistics() -> Any:
        return credit.token_statistics_from_hidden(hidden, head, other, head, ids)

    def whole() -> Any:
        return peers.careful(hidden @ head.t(), other @ head.t(), ids)

    def right(found: Any) -> dict[str, float]:
        few = slice(32)
        logits = [side[few].double() @ head.double().t() for side in (hidden, other)]
        return check(found, *logits, ids, case.vocabulary)

    moved = 2 * (hidden.nbytes + head.nbytes)
    base = report.measure(case, "two bare matmuls", matmuls, moved)
    theirs = Lazy(lambda: trl(hidden, other, head, ids))
    rows = [
        report.measure(case, "credit, statistics of two heads", statistics, moved, check=right),
        report.measure(case, "careful eager, two whole logits", whole, moved),
        report.measure(case, "TRL's chunked head on each (no d)", theirs, moved),
    ]
    say_ratios(base, rows)


def training(report: Report, case: Case, hidden: Tensor, head: Tensor, ids: Tensor) -> None:
    """log p, and the gradients of hidden states and head, for a weight per token."""
    leaves = [tensor.detach().requires_grad_() for tensor in (hidden, head)]
    weights = torch.randn(case.tokens, device=hidden.device)

    def matmuls() -> None:
        for start in range(0, case.tokens, ROWS):
            rows = hidden[start : start + ROWS]
            logits = torch.mm(rows, head.t())
            torch.mm(logits, head)
            torch.mm(logits.t(), rows)

    def train(log_probs: Callable[[], Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad((log_probs() * weights).sum(), leaves)

    def whole() -> Tensor:
        logits = (leaves[0] @ leaves[1].t()).float()
        return logits.log_softmax(-1).gather(-1, ids[:, None])[:, 0]

    moved = 2 * (hidden.nbytes + head.nbytes)
    base = report.measure(case, "three bare matmuls of training", matmuls, moved)
    ways = {
        "credit, log p": train(lambda: credit.selected_log_probs_from_hidden(*leaves, ids)),
        "eager, whole logits": train(whole),
        "TRL's chunked head": Lazy(lambda: train(trl_log_probs(leaves, ids))),
        "Liger's fused linear": Lazy(lambda: train(liger_log_probs(leaves, ids))),
    }
    rows = [report.measure(case, f"{who} and both gradients", way, moved) for who, way in ways.items()]
    say_ratios(base, rows)


def trl(hidden: Tensor, other: Tensor, head: Tensor, ids: Tensor) -> Callable[[], Any]:
    """What of the statistics TRL's head computes."""
    apply = import_module("trl.kernels.chunked_logprob").ChunkedLogProbFunction.apply
    options = head, None, ids, 1.0, TRL_CHUNK, None, 1.0, ("entropy",)
    return lambda: [apply(side, *options) for side in (hidden, other)]


def trl_log_probs(leaves: list[Tensor], ids: Tensor) -> Callable[[], Tensor]:
    apply = import_module("trl.kernels.chunked_logprob").ChunkedLogProbFunction.apply
    return lambda: apply(*leaves, None, ids, 1.0, TRL_CHUNK, None, 1.0, ())[0]


def liger_log_probs(leaves: list[Tensor], ids: Tensor) -> Callable[[], Tensor]:
    module = import_module("liger_kernel.ops.fused_linear_cross_entropy")
    apply = module.LigerFusedLinearCrossEntropyFunction.apply
    return lambda: -apply(*leaves, ids, None, None, -100, 0.0, 0.0, "none")[0]


def say_ratios(base: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """How many times as long as the bare matmuls each took."""
    for row in rows:
        if "ms" in row and "ms" in base:
            row["times_the_bare_matmuls"] = row["ms"] / base["ms"]
            print(f"{'':46s}{row['who']:44s}{row['times_the_bare_matmuls']:.2f} times {base['who']}")
