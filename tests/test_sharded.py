"""A vocabulary over two ranks equals the whole: torch with gloo, JAX inside shard_map."""

import os
import subprocess
import sys
from datetime import timedelta

import numpy as np
import pytest
import ranks

import credit

SIZE, PADDED, TOKENS, WIDTH = 1000, 1032, 12, 16
ALSO = ("kl", "entropy", "sum_squares", "reverse_kl")


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
        credit.token_statistics(x, y, ids, temperature=0.8, vocab_size=SIZE, also=ALSO),
        credit.token_statistics_from_hidden(h, w, h2, w2, ids, vocab_size=SIZE, **biases, also=ALSO),
    )


def assert_pairs_close(actual, expected):
    """Both the four statistics and those that are asked for; relatively, where the models nearly agree."""
    assert_close(actual[0], expected[0])
    assert set(actual[1]) == set(expected[1]) == set(ALSO)
    for name in ALSO:
        np.testing.assert_allclose(np.asarray(actual[1][name]), expected[1][name], rtol=2e-4, atol=1e-9)


def assert_alone(actual, expected):
    """A policy without a reference: its own statistics, and none that compare."""
    four, more = actual
    assert_close((four[0], four[2]), (expected[0][0], expected[0][2]))
    assert four[1] is None
    assert four[3] is None
    for name in ALSO[1:3]:
        np.testing.assert_allclose(np.asarray(more[name]), expected[1][name], rtol=2e-4, atol=1e-9)


def assert_close(actual, expected):
    for field, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(np.asarray(field), other, rtol=1e-6, atol=1e-6)


def run_rank(rank):
    """What one rank of two does; the first holds 516 columns, the second 516 of which 32 are padding."""
    import torch
    import torch.distributed as dist

    if os.environ.get("TRITON_INTERPRET") == "1":
        take_kernels()
    dist.init_process_group("gloo", timeout=timedelta(seconds=ranks.TIMEOUT))
    mine = slice(516 * rank, 516 * (rank + 1))
    logits, hidden, ids = draw()
    x, y = (torch.as_tensor(array[:, mine]) for array in logits)
    h, w, b, h2, w2, b2 = (torch.as_tensor(a if a.shape[0] == TOKENS else a[mine]) for a in hidden)
    group, ids = dist.group.WORLD, torch.as_tensor(ids)
    given = {"vocab_size": SIZE, "process_group": group}
    by_logits, by_hidden = whole()
    assert_pairs_close(credit.token_statistics(x, y, ids, temperature=0.8, **given, also=ALSO), by_logits)
    biases = {"policy_bias": b, "reference_bias": b2, "soft_cap": 5.0, "chunk": 300}
    from_hidden = credit.token_statistics_from_hidden(h, w, h2, w2, ids, **biases, **given, also=ALSO)
    assert_pairs_close(from_hidden, by_hidden)
    alone = credit.token_statistics(x, None, ids, temperature=0.8, **given, also=ALSO[1:3])
    assert_alone(alone, by_logits)
    biases = {"policy_bias": b, "soft_cap": 5.0, "chunk": 300}
    alone = credit.token_statistics_from_hidden(h, w, None, None, ids, **biases, **given, also=ALSO[1:3])
    assert_alone(alone, by_hidden)
    few = {"vocab_size": 300, "also": ALSO}
    small = credit.token_statistics(x, y, ids * 0, process_group=group, **few)  # rank 1: padding only
    assert_pairs_close(small, credit.token_statistics(*logits, np.zeros(TOKENS, np.int32), **few))
    check_gradient(logits[0][:, mine], ids, given, mine)
    dist.destroy_process_group()


def take_kernels():
    """The path of CUDA tensors, whose kernels run in Triton's interpreter."""
    import torch
    from interpreting import keep_the_language_patched

    from credit.backends.torch import paths

    keep_the_language_patched()
    paths.uses_kernels = lambda *tensors: tensors[0].dtype != torch.float64


def check_gradient(x, ids, given, mine):
    import torch

    x = torch.tensor(x, requires_grad=True)
    log_probs, entropy = credit.log_probs_and_entropy(x, ids, temperature=0.8, **given)
    weights = torch.linspace(-1, 1, TOKENS)
    loss = (log_probs * weights + entropy).sum()
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(NotImplementedError, match="a second derivative"):
        torch.autograd.grad(gradient.pow(2).sum(), x, retain_graph=True)
    loss.backward()
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
    ranks.run(__file__, 2, "torch", TRITON_INTERPRET="1" if path == "kernels" else "0")


def test_two_devices_of_jax():
    """JAX fixes its devices when it starts, so this has a process of its own."""
    pytest.importorskip("jax")
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    environment = os.environ | flags | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, __file__, "jax"], env=environment, text=True, capture_output=True, timeout=3600
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
        return credit.token_statistics(x, y, ids, temperature=0.8, **given, also=ALSO)

    def from_hidden(h, w, b, h2, w2, b2, ids):
        biases = {"policy_bias": b, "reference_bias": b2, "soft_cap": 5.0}
        return credit.token_statistics_from_hidden(h, w, h2, w2, ids, **biases, **given, also=ALSO)

    columns, rows, everywhere = P(None, "vocabulary"), P("vocabulary"), P()

    def sharded(function, specs):
        mapped = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=everywhere, check_vma=False)
        return jax.jit(mapped)

    assert_pairs_close(sharded(from_logits, (columns, columns, everywhere))(*logits, ids), by_logits)
    specs = (everywhere, rows, rows) * 2 + (everywhere,)
    assert_pairs_close(sharded(from_hidden, specs)(*hidden, ids), by_hidden)

    def of_one_model(h, w, b, ids):
        options = {"policy_bias": b, "soft_cap": 5.0, **given, "also": ALSO[1:3]}
        return credit.token_statistics_from_hidden(h, w, None, None, ids, **options)

    assert_alone(sharded(of_one_model, specs[:3] + specs[-1:])(*hidden[:3], ids), by_hidden)
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
    with pytest.raises(ValueError, match=r"reference_logits has shape \(2, 2\); expected \(2, 3\)"):
        credit.token_statistics(x, x[:, :2], ids, process_group="vocabulary")


@pytest.fixture
def world(tmp_path):
    """A group of one rank."""
    dist = pytest.importorskip("torch").distributed
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def test_one_rank_holds_the_whole(world):
    import torch

    from credit.backends import choose_sharded_backend

    x, y = torch.randn(2, 5, 70, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(5)
    assert choose_sharded_backend(x).locate_shard(70, world, x) == (world, 0, 70, 70)
    sharded = credit.token_statistics(x, y, ids, process_group=world)
    assert_close(sharded, credit.token_statistics(x, y, ids))
    bad = torch.where(ids > 2, ids, 10**6)  # masked ids may be anything
    masked = credit.token_statistics(x, y, bad, mask=ids > 2, process_group=world)
    for one, other in zip(masked, sharded, strict=True):
        np.testing.assert_array_equal(one, np.where(ids > 2, other, 0.0))


X, IDS = np.zeros((2, 7), np.float32), np.asarray([0, 6], np.int32)
REFUSED = {
    "integer logits": ({"policy_logits": X.astype(np.int32)}, "policy_logits is .*int32; expected floating"),
    "integer reference": (
        {"reference_logits": X.astype(np.int32)},
        "reference_logits is .*int32; expected floating",
    ),
    "float ids": ({"token_ids": IDS.astype(np.float32)}, "token_ids are .*float32; expected integers"),
    "ids of another shape": ({"token_ids": IDS[:1]}, r"token_ids has shape \(1,\); expected \(2,\)"),
    "other columns": ({"reference_logits": X[:, :5]}, r"reference_logits has shape \(2, 5\)"),
    "mask": ({"mask": np.ones(3)}, r"mask has shape \(3,\); expected \(2,\)"),
    "temperature 0": ({"temperature": 0.0}, "temperature is 0.0; expected a positive number"),
    "temperatures": ({"temperature": np.ones(3)}, r"temperature has shape \(3,\)"),
    "vocab_size 0": ({"vocab_size": 0}, "vocab_size is 0; expected 1.."),
    "vocab_size": ({"vocab_size": 99}, "vocab_size is 99; expected 1.."),
}
HEADS_REFUSED = {
    "integer head": ({"policy_head": np.ones((7, 4), np.int8)}, "policy_head is .*int8"),
    "head of another width": ({"reference_head": np.ones((7, 3), np.float32)}, "reference_head"),
    "heads of two vocabularies": ({"reference_head": np.ones((6, 4), np.float32)}, "7 and 6 rows"),
    "bias": ({"policy_bias": np.ones(6, np.float32)}, r"policy_bias has shape \(6,\)"),
    "soft_cap": ({"soft_cap": 0.0}, "soft_cap is 0.0"),
    "chunk": ({"chunk": 0}, "chunk is 0"),
    "float ids": ({"token_ids": IDS.astype(np.float32)}, "token_ids are .*float32"),
}


def from_logits(asarray, group, changed):
    given = {"policy_logits": X, "reference_logits": X, "token_ids": IDS} | changed
    given = {n: asarray(value) if isinstance(value, np.ndarray) else value for n, value in given.items()}
    return credit.token_statistics(**given, process_group=group)


def from_heads(asarray, group, changed):
    hidden, head = np.ones((2, 4), np.float32), np.ones((7, 4), np.float32)
    given = {"policy_hidden": hidden, "policy_head": head, "reference_hidden": hidden, "reference_head": head}
    given = given | {"token_ids": IDS} | changed
    given = {n: asarray(value) if isinstance(value, np.ndarray) else value for n, value in given.items()}
    return credit.token_statistics_from_hidden(**given, process_group=group)


CASES = [(from_logits, *case) for case in REFUSED.values()]
CASES += [(from_heads, *case) for case in HEADS_REFUSED.values()]
each_case = pytest.mark.parametrize(("function", "changed", "message"), CASES, ids=[*REFUSED, *HEADS_REFUSED])


@each_case
def test_a_rank_of_torch_refuses_what_the_whole_refuses(world, function, changed, message):
    import torch

    def asarray(array):
        return torch.from_numpy(np.array(array))

    for group in (None, world):
        with pytest.raises(ValueError, match=message):
            function(asarray, group, changed)


@pytest.mark.parametrize("bad", [-1, 7, 99])
def test_an_id_outside_the_whole_vocabulary_is_named(world, bad):
    import torch

    ids = torch.tensor([1, bad])
    with pytest.raises(ValueError, match=rf"token_ids\[1\] is {bad}; expected an id in 0..6"):
        credit.token_statistics(torch.zeros(2, 7), torch.zeros(2, 7), ids, process_group=world)
    with pytest.raises(ValueError, match=rf"token_ids\[1\] is {bad}; expected an id in 0..5"):
        credit.selected_log_probs(torch.zeros(2, 7), ids, vocab_size=6, process_group=world)


def test_differentiable_functions_refuse_the_same_on_a_rank(world):
    import torch

    x, ids = torch.zeros(2, 7), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="logits is .*int64; expected floating"):
        credit.log_probs_and_entropy(x.long(), ids, process_group=world)
    with pytest.raises(ValueError, match="token_ids are .*float32; expected integers"):
        credit.selected_log_probs(x, ids.float(), process_group=world)
    with pytest.raises(ValueError, match="temperature is -1"):
        credit.selected_log_probs(x, ids, temperature=-1, process_group=world)


def in_shard_map(function, *arrays):
    """function(*arrays) inside shard_map over one device."""
    import jax
    from jax.sharding import PartitionSpec as P

    mesh = jax.make_mesh((1,), ("vocabulary",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = {"in_specs": (P(),) * len(arrays), "out_specs": P(), "check_vma": False}
    return jax.shard_map(function, mesh=mesh, **specs)(*arrays)


@each_case
def test_a_device_of_jax_refuses_what_the_whole_refuses(function, changed, message):
    jax = pytest.importorskip("jax")
    with pytest.raises(ValueError, match=message):
        in_shard_map(lambda: function(jax.numpy.asarray, "vocabulary", changed))


def test_an_id_outside_the_whole_vocabulary_of_jax_gives_nan():
    """Inside shard_map ids are traced, so their values cannot be checked."""
    jax = pytest.importorskip("jax")

    def local(x, ids):
        return credit.selected_log_probs(x, ids, vocab_size=6, process_group="vocabulary")

    log_probs = in_shard_map(local, jax.numpy.asarray(X), jax.numpy.asarray([5, 6], "int32"))
    np.testing.assert_allclose(log_probs, [-np.log(6.0), np.nan], rtol=1e-6)


def test_masked_tokens_of_a_device_of_jax_are_zero():
    jax = pytest.importorskip("jax")
    x, y = np.random.default_rng(0).normal(size=(2, 2, 7)).astype(np.float32)
    mask, whole = np.asarray([True, False]), credit.token_statistics(x, y, IDS)

    def local(x, y, ids, mask):
        return credit.token_statistics(x, y, ids, mask=mask, process_group="vocabulary")

    bad = np.where(mask, IDS, 99)  # masked ids may be anything
    masked = in_shard_map(jax.jit(local), *(jax.numpy.asarray(array) for array in (x, y, bad, mask)))
    for one, other in zip(masked, whole, strict=True):
        assert other.all()
        np.testing.assert_allclose(one, np.where(mask, other, 0.0), rtol=1e-5)


if __name__ == "__main__":
    run_jax() if sys.argv[1] == "jax" else run_rank(int(os.environ["RANK"]))
