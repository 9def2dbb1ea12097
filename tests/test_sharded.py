"""A vocabulary over two ranks equals the whole: torch with gloo, JAX inside shard_map."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest

import credit

SIZE, PADDED, TOKENS, WIDTH = 1000, 1032, 12, 16


def draw():
    rng = np.random.default_rng(5)
    x = 3.0 * rng.normal(size=(TOKENS, PADDED))
    y = x + np.geomspace(1e-3, 1.0, TOKENS)[:, None] * rng.normal(size=x.shape)
    x[:, SIZE:], y[:, SIZE:] = 50.0, np.nan  # padding that must not count
    x[3, :516] = -np.inf  # a whole shard without mass
    ids = rng.integers(516, SIZE, size=TOKENS)
    ids[::2] = rng.integers(516, size=ids[::2].shape)
    ids[3] = 700
    hidden = [rng.normal(size=shape) for shape in ((TOKENS, WIDTH), (PADDED, WIDTH), (PADDED,)) * 2]
    logits = [array.astype(np.float32) for array in (x, y)]
    return logits, [array.astype(np.float32) for array in hidden], ids.astype(np.int32)


def whole():
    (x, y), (h, w, b, h2, w2, b2), ids = draw()
    biases = {"policy_bias": b, "reference_bias": b2, "soft_cap": 5.0}
    return (
        credit.token_statistics(x, y, ids, temperature=0.8, vocab_size=SIZE),
        credit.token_statistics_from_hidden(h, w, h2, w2, ids, vocab_size=SIZE, **biases),
    )


def assert_close(actual, expected):
    for field, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(np.asarray(field), other, rtol=1e-6, atol=1e-6)


def run_rank(rank, port):
    """What one rank of two does; the first holds 516 columns, the second 516 of which 32 are padding."""
    import torch
    import torch.distributed as dist

    if os.environ.get("TRITON_INTERPRET") == "1":
        take_kernels()
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    mine = slice(516 * rank, 516 * (rank + 1))
    logits, hidden, ids = draw()
    x, y = (torch.as_tensor(array[:, mine]) for array in logits)
    h, w, b, h2, w2, b2 = (torch.as_tensor(a if a.shape[0] == TOKENS else a[mine]) for a in hidden)
    group, ids = dist.group.WORLD, torch.as_tensor(ids)
    given = {"vocab_size": SIZE, "process_group": group}
    by_logits, by_hidden = whole()
    assert_close(credit.token_statistics(x, y, ids, temperature=0.8, **given), by_logits)
    biases = {"policy_bias": b, "reference_bias": b2, "soft_cap": 5.0, "chunk": 300}
    assert_close(credit.token_statistics_from_hidden(h, w, h2, w2, ids, **biases, **given), by_hidden)
    small = credit.token_statistics(
        x, y, ids * 0, vocab_size=300, process_group=group
    )  # rank 1: padding only
    assert_close(small, credit.token_statistics(*logits, np.zeros(TOKENS, np.int32), vocab_size=300))
    check_gradient(logits[0][:, mine], ids, given, mine)
    dist.destroy_process_group()


def take_kernels():
    """The path of CUDA tensors, whose kernels run in Triton's interpreter."""
    from interpreting import keep_the_language_patched

    import credit.backends.torch as backend

    keep_the_language_patched()
    backend.on_kernels = lambda *tensors: tensors[0].dtype != backend.torch.float64


def check_gradient(x, ids, given, mine):
    import torch

    x = torch.tensor(x, requires_grad=True)
    log_probs, entropy = credit.log_probs_and_entropy(x, ids, temperature=0.8, **given)
    weights = torch.linspace(-1, 1, TOKENS)
    (log_probs * weights + entropy).sum().backward()
    full = torch.tensor(draw()[0][0], requires_grad=True)
    expected = credit.log_probs_and_entropy(full, ids, temperature=0.8, vocab_size=SIZE)
    (expected[0] * weights + expected[1]).sum().backward()
    assert_close((log_probs.detach(), entropy.detach()), [field.detach().numpy() for field in expected])
    assert_close((x.grad,), (full.grad[:, mine].numpy(),))


@pytest.mark.parametrize("path", ["blocks", "kernels"])
def test_two_ranks_of_torch(path):
    pytest.importorskip("torch")
    if path == "kernels":
        pytest.importorskip("triton")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "TRITON_INTERPRET": "1" if path == "kernels" else "0",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(port)],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in (0, 1)
    ]
    for process in ranks:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output[-3000:]


def test_two_devices_of_jax():
    """JAX fixes its devices when it starts, so this has a process of its own."""
    pytest.importorskip("jax")
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    environment = os.environ | flags | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, __file__, "jax"], env=environment, text=True, capture_output=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]


def run_jax():
    import jax
    from jax.sharding import PartitionSpec as P

    logits, hidden, ids = draw()
    mesh = jax.make_mesh((2,), ("vocabulary",), axis_types=(jax.sharding.AxisType.Auto,))
    given = {"vocab_size": SIZE, "process_group": "vocabulary"}
    by_logits, by_hidden = whole()

    def from_logits(x, y, ids):
        return credit.token_statistics(x, y, ids, temperature=0.8, **given)

    def from_hidden(h, w, b, h2, w2, b2, ids):
        biases = {"policy_bias": b, "reference_bias": b2, "soft_cap": 5.0}
        return credit.token_statistics_from_hidden(h, w, h2, w2, ids, **biases, **given)

    columns, rows, everywhere = P(None, "vocabulary"), P("vocabulary"), P()

    def sharded(function, specs):
        mapped = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=everywhere, check_vma=False)
        return jax.jit(mapped)

    assert_close(sharded(from_logits, (columns, columns, everywhere))(*logits, ids), by_logits)
    specs = (everywhere, rows, rows) * 2 + (everywhere,)
    assert_close(sharded(from_hidden, specs)(*hidden, ids), by_hidden)
    for checked in (True, False):
        check_jax_gradient(mesh, logits[0], ids, checked)
    check_bad_rows(mesh)


def check_jax_gradient(mesh, x, ids, checked):
    """Gradients that JAX takes through shard_map, of the whole batch's loss."""
    import jax
    from jax.sharding import PartitionSpec as P

    weights, ids = np.linspace(-1, 1, TOKENS).astype(np.float32), jax.numpy.asarray(ids)

    def loss(x, ids, **given):
        log_probs, entropy = credit.log_probs_and_entropy(x, ids, temperature=0.8, vocab_size=SIZE, **given)
        return (log_probs * weights + entropy).sum(), (log_probs, entropy)

    def local(x, ids):
        return loss(x, ids, process_group="vocabulary")

    specs = {"in_specs": (P(None, "vocabulary"), P()), "out_specs": P(), "check_vma": checked}
    sharded = jax.value_and_grad(jax.jit(jax.shard_map(local, mesh=mesh, **specs)), has_aux=True)
    (_, fields), gradient = sharded(x, ids)
    (_, expected), whole = jax.value_and_grad(loss, has_aux=True)(x, ids)
    assert_close(fields, expected)
    np.testing.assert_allclose(gradient, whole, rtol=1e-5, atol=1e-6)


def check_bad_rows(mesh):
    """NaN for its own token, wherever the bad logit lies; a shard without mass is none."""
    import jax
    from jax.sharding import PartitionSpec as P

    x = np.zeros((4, 6), np.float32)
    x[0, 1], x[1, 4], x[2] = np.nan, np.inf, -np.inf
    x[3, :3] = -np.inf

    def local(x, ids):
        return credit.log_probs_and_entropy(x, ids, process_group="vocabulary")

    specs = {"in_specs": (P(None, "vocabulary"), P()), "out_specs": P()}
    log_probs, entropy = jax.jit(jax.shard_map(local, mesh=mesh, **specs))(x, np.full(4, 5, np.int32))
    assert np.isnan(log_probs[:3]).all()
    assert np.isnan(entropy[:3]).all()
    np.testing.assert_allclose([log_probs[3], entropy[3]], [-np.log(3), np.log(3)], rtol=1e-6)


def test_what_cannot_be_sharded_is_refused():
    x, ids = np.zeros((2, 3), np.float32), np.zeros(2, np.int32)
    with pytest.raises(ValueError, match="needs torch tensors, or JAX arrays"):
        credit.token_statistics(x, x, ids, process_group="vocabulary")
    with pytest.raises(ValueError, match="needs torch tensors, or JAX arrays"):
        credit.selected_log_probs(x, ids, process_group="vocabulary")
    with pytest.raises(ValueError, match="3 columns of the policy and 2 of the reference"):
        credit.token_statistics(x, x[:, :2], ids, process_group="vocabulary")


if __name__ == "__main__":
    run_jax() if sys.argv[1] == "jax" else run_rank(int(sys.argv[1]), int(sys.argv[2]))
