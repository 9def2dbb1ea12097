"""Training from hidden states computes no gradient that nobody asks for, and touches a tile as rarely as it can."""

from collections import Counter

import pytest

import credit
from credit.backends import limits

torch = pytest.importorskip("torch")
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

ROWS, WIDTH, SIZE, CHUNK = 24, 8, 4_000, 1_000
TILE = ROWS * CHUNK
VIEWS = ("aten.t.default", "aten.slice.Tensor", "aten.detach.default")


class Operators(TorchDispatchMode):
    """Counts operators, and the entries that those of tiles read and write."""

    def __init__(self):
        super().__init__()
        self.calls, self.tile_entries, self.largest = Counter(), Counter(), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = str(function)
        made = [t for t in (result if isinstance(result, tuple) else (result,)) if torch.is_tensor(t)]
        if name not in VIEWS:
            self.calls[name] += 1
            tensors = [*(each for each in args if torch.is_tensor(each)), *made]
            tiles = [tensor for tensor in tensors if tensor.numel() == TILE]
            self.tile_entries[name] += sum(tensor.numel() for tensor in tiles)
        self.largest = max(self.largest, *(tensor.numel() for tensor in made), 0)
        return result


def backward(trained, **options):
    """The operators of a backward pass, and the gradients of what is trained of hidden, head and bias."""
    torch.manual_seed(0)
    leaves = {"hidden": torch.randn(ROWS, WIDTH), "head": torch.randn(SIZE, WIDTH)}
    if options.pop("biased", False):
        leaves["bias"] = torch.randn(SIZE)
    for name in trained:
        leaves[name].requires_grad_()
    ids = torch.randint(SIZE, (ROWS,))
    values = credit.selected_log_probs_from_hidden(**leaves, token_ids=ids, chunk=CHUNK, **options)
    loss = values @ torch.linspace(-1, 1, ROWS)
    with Operators() as seen:
        loss.backward()
    return seen, {name: leaves[name].grad for name in trained}


EVERY = {"hidden", "head", "bias"}


@pytest.mark.parametrize(
    ("trained", "products"),
    [({"hidden"}, 2), ({"head"}, 2), ({"hidden", "head"}, 3), ({"bias"}, 1), (EVERY, 3)],
    ids=lambda value: "+".join(sorted(value)) if isinstance(value, set) else "",
)
def test_only_gradients_that_are_needed_are_multiplied(trained, products):
    """A tile costs a product for itself, and one each for hidden states and head."""
    seen, gradients = backward(trained, biased=True, scale=0.5, soft_cap=3.0)
    assert seen.calls["aten.mm.default"] == products * SIZE // CHUNK
    if "head" not in trained:
        assert seen.largest == TILE  # and no [V, D], which is larger here
    _, every = backward(EVERY, biased=True, scale=0.5, soft_cap=3.0)
    for name, gradient in gradients.items():
        assert torch.equal(gradient, every[name])


def test_a_plain_tile_is_written_and_read_by_its_products_and_its_gradient_alone():
    """Logits are written and read once, their gradient is written once and read by each product."""
    seen, _ = backward({"hidden"})
    touched = {name: entries / TILE for name, entries in seen.tile_entries.items() if entries}
    chunks = SIZE // CHUNK
    assert touched == {"aten.mm.default": 2 * chunks, "credit.cpu_grad_logits.default": 2 * chunks}


def test_tiles_of_one_head_are_made_for_all_rows(monkeypatch):
    """Rows in several blocks: a part of the head is widened once, and used for all of them."""
    monkeypatch.setattr(limits, "CUDA_HEAD_ROWS", 5)
    hidden = torch.randn(ROWS, WIDTH, requires_grad=True)
    head = torch.randn(SIZE, WIDTH).bfloat16()
    ids = torch.randint(SIZE, (ROWS,))
    values = credit.selected_log_probs_from_hidden(hidden, head, ids, chunk=CHUNK)
    with Operators() as seen:
        values.sum().backward()
    assert seen.calls["aten._to_copy.default"] == SIZE // CHUNK
    assert seen.calls["aten.mm.default"] == 2 * SIZE // CHUNK * 5
    with torch.no_grad():
        expected = (hidden @ head.float().T).log_softmax(-1)
    torch.testing.assert_close(values, expected.gather(1, ids[:, None])[:, 0], rtol=1e-5, atol=1e-5)
