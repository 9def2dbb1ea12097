"""What only torch has: gradcheck, function transforms, compilation, meta tensors, autocast, memory."""

import logit_cases
import numpy as np
import pytest
import statistics_oracle as oracle

import credit

torch = pytest.importorskip("torch")
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402


@pytest.fixture
def drawn():
    """Logits x, y [6, V] over two chunks and ids [6]."""
    rng = np.random.default_rng(1)
    x, y = logit_cases.ordinary(rng)
    return torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(rng.integers(x.shape[-1], size=6))


class LargestAllocation(TorchDispatchMode):
    """Records the bytes of the largest storage that an operation makes."""

    def __init__(self, *inputs):
        super().__init__()
        self.known = {x.untyped_storage().data_ptr() for x in inputs}
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in self.known:
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("output", [0, 1])
def test_gradcheck(output):
    torch.manual_seed(0)
    logits = (3 * torch.randn(2, 3, 11, dtype=torch.float64)).requires_grad_()
    ids = torch.randint(11, (2, 3))
    temperature = torch.rand(2, 3, dtype=torch.float64) + 0.5

    def function(x):
        return credit.log_probs_and_entropy(x, ids, temperature=temperature)[output]

    assert torch.autograd.gradcheck(function, logits)


def test_strided_logits_are_read_in_place(drawn):
    rng = np.random.default_rng(2)
    x, y = (torch.from_numpy(rng.random((4, 33, 20_000), np.float32)) for _ in range(2))
    ids = torch.from_numpy(rng.integers(20_000, size=(4, 32)))
    with LargestAllocation(x, y) as largest:
        stats = credit.token_statistics(x[:, :-1], y[:, :-1], ids)
        credit.selected_log_probs(x[:, :-1], ids)
    assert largest.bytes < x[:, :-1].numel() * 4 / 4
    expected = oracle.statistics(x[:, :-1].numpy(), y[:, :-1].numpy(), ids.numpy())
    assert max(oracle.errors(stats, expected, 20_000).values()) <= 1.0


def test_hidden_states_never_make_the_whole_logits():
    hidden, head = torch.randn(64, 8), torch.randn(100_000, 8)
    with LargestAllocation(hidden, head) as largest:
        credit.token_statistics_from_hidden(hidden, head, hidden, head, torch.arange(64), chunk=2_000)
    assert largest.bytes < 64 * 100_000 * 4 / 4


def test_the_gradient_of_strided_and_expanded_logits(drawn):
    x, _, ids = drawn
    wide = x.reshape(2, 3, -1).clone().requires_grad_()
    credit.selected_log_probs(wide[:, :-1], ids.reshape(2, 3)[:, 1:]).sum().backward()
    exact, _ = oracle.gradients(x.reshape(2, 3, -1)[:, :-1].numpy(), ids.reshape(2, 3)[:, 1:].numpy())
    np.testing.assert_allclose(wide.grad[:, :-1], exact, rtol=3e-5, atol=2e-6)
    np.testing.assert_array_equal(wide.grad[:, -1], 0.0)
    row = x[:1].clone().requires_grad_()
    credit.selected_log_probs(row.expand(6, -1), ids).sum().backward()
    exact, _ = oracle.gradients(x[:1].expand(6, -1).numpy(), ids.numpy())
    np.testing.assert_allclose(row.grad[0], exact.sum(0), rtol=3e-5, atol=4e-6)


def test_no_gradient_flows_through_token_statistics(drawn, monkeypatch):
    x, y, ids = drawn
    temperature = torch.ones(6, requires_grad=True)
    for backend in ("", "array_api"):
        monkeypatch.setenv("CREDIT_BACKEND", backend)
        stats = credit.token_statistics(x.clone().requires_grad_(), y, ids, temperature=temperature)
        assert not any(field.requires_grad for field in stats)


def test_inference_tensors(drawn):
    x, y, ids = drawn
    with torch.inference_mode():
        inside = x.clone()
        torch.testing.assert_close(
            credit.token_statistics(inside, y, ids), credit.token_statistics(x, y, ids)
        )
    torch.testing.assert_close(credit.selected_log_probs(inside, ids), credit.selected_log_probs(x, ids))


def test_vmap_and_grad_of_torch_func(drawn):
    x, y, ids = drawn
    of_log_prob, of_entropy = oracle.gradients(x.numpy(), ids.numpy())
    values, entropies = torch.vmap(credit.log_probs_and_entropy)(x, ids)
    torch.testing.assert_close((values, entropies), credit.log_probs_and_entropy(x, ids))
    per_token = torch.vmap(torch.func.grad(credit.selected_log_probs))(x, ids)
    np.testing.assert_allclose(per_token, of_log_prob, rtol=3e-5, atol=2e-6)
    jacobian = torch.func.jacrev(lambda x: credit.log_probs_and_entropy(x, ids)[1])(x)
    np.testing.assert_allclose(jacobian.diagonal().T, of_entropy, rtol=3e-5, atol=2e-6)
    torch.testing.assert_close(
        torch.vmap(credit.token_statistics)(x, y, ids), credit.token_statistics(x, y, ids)
    )
    shared = torch.vmap(credit.selected_log_probs, in_dims=(1, None))(x[:, None].expand(-1, 2, -1), ids)
    torch.testing.assert_close(shared, values.expand(2, -1))


def test_functions_within_torch_func_may_close_over_anything(drawn):
    """Ids and groups are memory there, but all that is computed from them is not."""
    x, _, ids = drawn
    of_log_prob, _ = oracle.gradients(x.numpy(), ids.numpy())
    gradient = torch.func.grad(lambda x: credit.selected_log_probs(x, ids).sum())(x)
    np.testing.assert_allclose(gradient, of_log_prob, rtol=3e-5, atol=2e-6)
    groups, mask, rewards = torch.tensor([0, 0, 1, 1]), torch.ones(4, 3), torch.tensor([1.0, 0.0, 2.0, 5.0])

    def advantages(rewards):
        fields = {"deviation": mask, "normalized_entropy": mask}
        return credit.DGPO()(credit.Rollouts(rewards, groups, mask, **fields)).advantages

    torch.testing.assert_close(torch.vmap(advantages)(rewards[None])[0], advantages(rewards))


def test_an_unreadable_id_gives_nan_and_no_gradient(drawn):
    x, y, ids = drawn
    ids[2] = -100
    stats = torch.vmap(credit.token_statistics)(x, y, ids)
    for field, bad in zip(stats, ([2], [2], [], []), strict=True):
        assert field.isnan().nonzero().flatten().tolist() == bad
    gradient = torch.func.grad(lambda x: torch.vmap(credit.selected_log_probs)(x, ids).nansum())(x)
    np.testing.assert_array_equal(gradient[2], 0.0)
    assert gradient[1].abs().max() > 0.0


def test_meta_tensors_carry_shapes_only(drawn):
    x, y, ids = (tensor.to("meta") for tensor in drawn)
    stats = credit.token_statistics(x, y, ids, mask=ids > 0, temperature=torch.ones(6, device="meta"))
    assert {(field.shape, field.device.type) for field in stats} == {((6,), "meta")}


def test_arrays_on_two_devices_are_refused(drawn):
    x, y, ids = drawn
    with pytest.raises(ValueError, match="all arrays must be on one device; got .*token_ids: meta"):
        credit.token_statistics(x, y, ids.to("meta"))


def compiled(function):
    torch.compiler.reset()
    return torch.compile(function, fullgraph=True, backend="eager")


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_token_statistics_compiles_without_a_break(drawn):
    x, y, ids = drawn
    plain = credit.token_statistics(x, y, ids, mask=ids > 0)
    ids[3] = x.shape[-1]
    stats = compiled(lambda x, y, ids: credit.token_statistics(x, y, ids, mask=ids > 0))(x, y, ids)
    assert stats.log_probs[3].isnan()
    assert stats.reference_log_probs[3].isnan()
    good = torch.arange(6) != 3
    torch.testing.assert_close([f[good] for f in stats], [f[good] for f in plain])
    torch.testing.assert_close(stats.deviation, plain.deviation)


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_token_statistics_from_hidden_compiles_without_a_break(drawn):
    x, y, _ = drawn
    arguments = x[:, :9], torch.randn(50, 9), y[:, :7], torch.randn(50, 7), torch.arange(6)
    stats = compiled(credit.token_statistics_from_hidden)(*arguments)
    torch.testing.assert_close(stats, credit.token_statistics_from_hidden(*arguments))


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_log_probs_and_their_gradient_compile_without_a_break(drawn):
    x, _, ids = drawn
    leaf = x.clone().requires_grad_()
    log_probs, entropy = compiled(credit.log_probs_and_entropy)(leaf, ids)
    (log_probs.sum() + 0.5 * entropy.sum()).backward()
    of_log_prob, of_entropy = oracle.gradients(x.numpy(), ids.numpy())
    np.testing.assert_allclose(leaf.grad, of_log_prob + 0.5 * of_entropy, rtol=3e-5, atol=2e-6)


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_the_compiled_graph_does_not_grow_with_the_logits():
    def nodes(rows, size):
        graphs = []

        def keep(module, inputs):
            graphs.append(module)
            return module.forward

        x, ids = torch.zeros(rows, size), torch.zeros(rows, dtype=torch.int64)
        torch.compiler.reset()
        torch.compile(credit.token_statistics, fullgraph=True, backend=keep)(x, x, ids)
        torch.compile(credit.log_probs_and_entropy, fullgraph=True, backend=keep)(x, ids)
        return [len(module.graph.nodes) for module in graphs]

    assert nodes(3, 40) == nodes(40, 70_000)


def test_autocast_does_not_reach_the_statistics(drawn):
    x, y, ids = drawn
    hidden = x[:, :9], torch.randn(50, 9), y[:, :7], torch.randn(50, 7), torch.arange(6)
    plain = credit.token_statistics(x, y, ids), credit.token_statistics_from_hidden(*hidden)
    leaf = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = credit.token_statistics(x, y, ids), credit.token_statistics_from_hidden(*hidden)
        log_probs = credit.selected_log_probs(leaf, ids)
    log_probs.sum().backward()
    torch.testing.assert_close(inside, plain, rtol=0, atol=0)
    exact, _ = oracle.gradients(x.numpy(), ids.numpy())
    np.testing.assert_allclose(leaf.grad, exact, rtol=3e-5, atol=2e-6)


def test_a_device_without_a_fast_path_has_the_same_values_and_gradient(drawn, monkeypatch):
    """Neither CUDA's kernels nor numpy's blocks take its tensors, which CPU tensors stand for here."""
    from credit.backends.torch import paths

    x, _, ids = drawn
    x[:, ::3] = -torch.inf
    x[torch.arange(6), ids] = 1.0
    exact = credit.log_probs_and_entropy(x, ids)
    monkeypatch.setattr(paths, "is_on_cpu", lambda *tensors: False)
    leaf = x.clone().requires_grad_()
    log_probs, entropy = credit.log_probs_and_entropy(leaf, ids)
    torch.testing.assert_close((log_probs, entropy), exact, rtol=1e-5, atol=1e-5)
    (log_probs.sum() + 0.5 * entropy.sum()).backward()
    of_log_prob, of_entropy = oracle.gradients(x.numpy(), ids.numpy())
    np.testing.assert_allclose(leaf.grad, of_log_prob + 0.5 * of_entropy, rtol=3e-5, atol=2e-6)


def test_the_forced_reference_has_the_same_gradient(drawn, monkeypatch):
    x, _, ids = drawn
    x[:, ::3] = -torch.inf
    monkeypatch.setenv("CREDIT_BACKEND", "array_api")
    leaf = x.clone().requires_grad_()
    log_probs, entropy = credit.log_probs_and_entropy(leaf, ids)
    (log_probs[log_probs.isfinite()].sum() + 0.5 * entropy.sum()).backward()
    of_log_prob, of_entropy = oracle.gradients(x.numpy(), ids.numpy())
    exact = log_probs.isfinite().numpy()[:, None] * of_log_prob + 0.5 * of_entropy
    np.testing.assert_allclose(leaf.grad, exact, rtol=3e-5, atol=2e-6)
