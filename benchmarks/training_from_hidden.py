"""What training and scoring from hidden states cost on a CPU: products, bytes per tile, memory and CPU time.

    python benchmarks/training_from_hidden.py

A tile is 1,024 rows x 8,192 vocabulary entries of logits in float32. Bytes are those that operators read and
write of tensors of a tile's size or more, per tile; tests/test_kernels.py counts those of a GPU's path. The
peer is PyTorch on whole logits. CPU time is of this process, the best of several rounds in turns.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measurements import MB, RESULTS, cpu_name
from memory import peak, reset_peak
from records import write_json
from torch.utils._python_dispatch import TorchDispatchMode

import credit

ROWS, WIDTH, SIZE, CHUNK = 1_024, 256, 32_768, 8_192
TILE = ROWS * CHUNK
ROUNDS = 5
Call = Callable[[], Any]


class Operators(TorchDispatchMode):
    """Counts matrix products, and bytes of tensors of a tile's size or more; views move none."""

    def __init__(self) -> None:
        super().__init__()
        self.products, self.bytes = 0, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.products += str(function).startswith(("aten.mm", "aten.addmm"))
        made = result if isinstance(result, tuple) else (result,)
        tensors = [each for each in (*args, *made) if torch.is_tensor(each)]
        if not function.is_view:
            self.bytes += sum(each.nbytes for each in tensors if each.numel() >= TILE)
        return result


def draw() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    head = torch.randn(SIZE, WIDTH) / WIDTH**0.5
    return torch.randn(ROWS, WIDTH), head, torch.randn(SIZE), torch.randint(SIZE, (ROWS,))


def train(log_probs: Callable[..., torch.Tensor], trained: tuple[bool, bool], **options: Any) -> Call:
    """Forward and backward, with the gradients of hidden states and head that are needed."""
    hidden, head, bias, ids = draw()
    hidden.requires_grad_(trained[0]), head.requires_grad_(trained[1])
    weights = torch.linspace(-1, 1, ROWS)
    leaves = [leaf for leaf in (hidden, head) if leaf.requires_grad]
    given = {"bias": bias, **options} if options else {}
    return lambda: torch.autograd.grad((log_probs(hidden, head, ids, **given) * weights).sum(), leaves)


def in_tiles(hidden: Any, head: Any, ids: Any, **options: Any) -> torch.Tensor:
    return credit.selected_log_probs_from_hidden(hidden, head, ids, chunk=CHUNK, **options)


def whole(
    hidden: Any, head: Any, ids: Any, bias: Any = 0.0, scale: float = 1.0, soft_cap: Any = None
) -> torch.Tensor:
    x = scale * (hidden @ head.t() + bias) if scale != 1.0 else hidden @ head.t()
    x = x if soft_cap is None else soft_cap * torch.tanh(x / soft_cap)
    return x.log_softmax(-1).gather(1, ids[:, None])[:, 0]


def score_entropy() -> Call:
    """What an estimator without a reference needs: log p and H of one model."""
    hidden, head, _, ids = draw()

    def alone() -> Any:
        return credit.token_statistics_from_hidden(hidden, head, None, None, ids, chunk=CHUNK)

    def twice() -> Any:  # as it was before a reference could be left out
        return credit.token_statistics_from_hidden(hidden, head, hidden, head, ids, chunk=CHUNK)

    try:
        alone()
    except (AttributeError, TypeError, ValueError):
        return twice
    return alone


CAPPED = {"scale": 0.5, "soft_cap": 30.0}
ARMS: dict[str, Callable[[], Call]] = {
    "head trained": lambda: train(in_tiles, (True, True)),
    "head trained, whole logits": lambda: train(whole, (True, True)),
    "head frozen": lambda: train(in_tiles, (True, False)),
    "head frozen, whole logits": lambda: train(whole, (True, False)),
    "head frozen, bias, scale, cap": lambda: train(in_tiles, (True, False), **CAPPED),
    "head frozen, bias, scale, cap, whole logits": lambda: train(whole, (True, False), **CAPPED),
    "entropy without a reference": score_entropy,
}


def measure(call: Call) -> dict[str, float]:
    before = reset_peak()
    call()
    memory = peak() - before
    with Operators() as seen:
        call()
    tiles = ROWS * SIZE / TILE
    return {
        "products_per_tile": seen.products / tiles,
        "tile_mb_per_tile": seen.bytes / tiles / MB,
        "peak_mb": memory / MB,
    }


def main(path: Path) -> int:
    calls = {name: make() for name, make in ARMS.items()}
    rows = {name: measure(call) for name, call in calls.items()}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.process_time()
            call()
            seconds = time.process_time() - start
            rows[name]["cpu_ms"] = min(rows[name].get("cpu_ms", 1e9), 1e3 * seconds)
    for name, row in rows.items():
        print(f"{name:46s}" + "  ".join(f"{key} {value:8.1f}" for key, value in row.items()))
    shape = {"rows": ROWS, "width": WIDTH, "vocabulary": SIZE, "chunk": CHUNK}
    threads = torch.get_num_threads()
    write_json(
        path, {"device": cpu_name(), "torch": torch.__version__, "threads": threads, **shape, "rows_of": rows}
    )
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "training_from_hidden_cpu.json")
    sys.exit(main(parser.parse_args().output))
