"""The constants of backends/limits.py that were chosen without a GPU, each beside its neighbours."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from measurements import Case, Report
from workloads import draw

import credit
from credit.backends import limits

REGISTERS = (64, 80, 96, 128)  # per thread of the fold
DIVERGENCE_REGISTERS = (80, 104, 128, 168)  # the same where a KL is asked for; they spill below 128
TILES = ((4096, 4096), (4096, 8192), (8192, 8192), (4096, 16_384), (2048, 32_768))  # rows x entries


@contextmanager
def replaced(**constants: int) -> Iterator[None]:
    """Other values in limits.py for a while."""
    before = {name: getattr(limits, name) for name in constants}
    try:
        for name, value in constants.items():
            setattr(limits, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(limits, name, value)


def under(function: Callable[[], Any], **constants: int) -> Callable[[], Any]:
    def call() -> Any:
        with replaced(**constants):
            return function()

    return call


def registers(report: Report, case: Case) -> None:
    """The fold by its registers per thread."""
    x, y, ids = draw(case, report.device)
    for count in REGISTERS:
        fold = under(lambda: credit.token_statistics(x, y, ids), TRITON_REGISTERS=count)
        report.measure(case, f"credit, {count} registers", fold)
    for count in DIVERGENCE_REGISTERS:
        fold = under(
            lambda: credit.token_statistics(x, y, ids, also=("kl",)), TRITON_DIVERGENCE_REGISTERS=count
        )
        report.measure(case, f"credit, with kl, {count} registers", fold)


def head_tiles(report: Report, case: Case, width: int) -> None:
    """Hidden states by the size of a tile, and a matmul alone by the type of its output."""
    hidden = torch.randn(case.tokens, width, dtype=case.kind, device=report.device)
    head = torch.randn(case.vocabulary, width, dtype=case.kind, device=report.device) / width**0.5
    ids = torch.randint(case.vocabulary, (case.tokens,), device=report.device)
    moved = 2 * (hidden.nbytes + head.nbytes)

    def statistics() -> Any:
        return credit.token_statistics_from_hidden(hidden, head, hidden, head, ids)

    for rows, entries in TILES:
        tiles = {"CUDA_HEAD_ROWS": rows, "CUDA_HEAD_CHUNK_ENTRIES": entries}
        report.measure(case, f"credit, tiles of {rows} x {entries}", under(statistics, **tiles), moved)
    part = slice(limits.CUDA_HEAD_CHUNK_ENTRIES)
    rows = slice(limits.CUDA_HEAD_ROWS)
    outputs = [case.kind, torch.float32] if hidden.is_cuda else [case.kind]
    for kind in outputs:
        options = {} if kind == case.kind else {"out_dtype": kind}
        name = f"one tile's matmul, {str(kind)[6:]} output"
        report.measure(case, name, lambda o=options: torch.mm(hidden[rows], head[part].t(), **o), moved)
