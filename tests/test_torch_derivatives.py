"""The derivatives that torch's fast paths have, the first in reverse mode, and that all others are refused."""

import pytest

import credit

torch = pytest.importorskip("torch")
from torch.autograd import forward_ad  # noqa: E402

from credit.backends.torch import paths  # noqa: E402

pytestmark = pytest.mark.filterwarnings(  # of torch's own, about forward mode and vmap
    "ignore:`torch.jit.script` is deprecated:DeprecationWarning", "ignore:There is a performance drop"
)

ROWS, SIZE, WIDTH = 4, 9, 5
IDS = torch.tensor([1, 3, 0, 8])
REFUSED = (
    r"(a second derivative|forward-mode differentiation) of .* not supported .* CREDIT_BACKEND=array_api"
)


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


HIDDEN, HEAD = draw(ROWS, WIDTH), 0.5 * draw(SIZE, WIDTH)


def entropy_of(log_p):
    return -(log_p.exp() * log_p).sum(-1)


def select(log_p):
    return log_p.gather(-1, IDS[:, None])[:, 0]


# Functions of one tensor: credit's, torch's own, and where they are taken.
FUNCTIONS = {
    "log p": (
        lambda x: credit.selected_log_probs(x, IDS),
        lambda x: select(x.log_softmax(-1)),
        draw(ROWS, SIZE),
    ),
    "H": (
        lambda x: credit.log_probs_and_entropy(x, IDS)[1],
        lambda x: entropy_of(x.log_softmax(-1)),
        draw(ROWS, SIZE),
    ),
    "hidden": (
        lambda h: credit.selected_log_probs_from_hidden(h, HEAD, IDS),
        lambda h: select((h @ HEAD.T).log_softmax(-1)),
        HIDDEN,
    ),
    "head": (
        lambda w: credit.selected_log_probs_from_hidden(HIDDEN, w, IDS),
        lambda w: select((HIDDEN @ w.T).log_softmax(-1)),
        HEAD,
    ),
    "bias": (
        lambda b: credit.selected_log_probs_from_hidden(HIDDEN, HEAD, IDS, bias=b),
        lambda b: select((HIDDEN @ HEAD.T + b).log_softmax(-1)),
        draw(SIZE),
    ),
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)


def penalize_gradient(function, x):
    """The gradient of a loss that is linear in the function, plus its squared gradient."""
    leaf = x.clone().requires_grad_()
    loss = -function(leaf).mean()
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    return torch.autograd.grad(loss + gradient.pow(2).sum(), leaf)[0]


def push_forward(function, x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(x, torch.ones_like(x)))).tangent


def total(function):
    return lambda x: function(x).sum()


DERIVATIVES = {
    "penalty": penalize_gradient,
    "autograd.functional.hessian": lambda f, x: torch.autograd.functional.hessian(total(f), x),
    "func.grad of func.grad": lambda f, x: torch.func.grad(
        lambda x: torch.func.grad(total(f))(x).pow(2).sum()
    )(x),
    "func.jvp": lambda f, x: torch.func.jvp(f, (x,), (torch.ones_like(x),))[1],
    "forward_ad": push_forward,
}
OVER_ROWS = {
    "func.hessian": lambda f, x: torch.func.hessian(total(f))(x),
    "func.jacrev of func.jacrev": lambda f, x: torch.func.jacrev(torch.func.jacrev(total(f)))(x),
    "func.jacfwd": lambda f, x: torch.func.jacfwd(f)(x),
}  # by vmap, which the functions of hidden states do not take


@pytest.fixture(params=["on a CPU", "elsewhere"])
def path(request, monkeypatch):
    """Each path of a machine without a GPU; the kernels' is in tests/test_kernels.py."""
    if request.param == "elsewhere":
        monkeypatch.setattr(paths, "is_on_cpu", lambda *tensors: False)


@every_function
@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_a_derivative_that_is_missing_is_refused(path, name, derivative):
    function, _, x = FUNCTIONS[name]
    with pytest.raises(NotImplementedError, match=REFUSED):
        DERIVATIVES[derivative](function, x)


@every_function
@pytest.mark.parametrize("derivative", OVER_ROWS)
def test_a_derivative_over_rows_is_refused(path, name, derivative):
    function, _, x = FUNCTIONS[name]
    expected = REFUSED if name in ("log p", "H") else "does not have vmap support"
    with pytest.raises(RuntimeError, match=expected):
        OVER_ROWS[derivative](function, x)


@every_function
@pytest.mark.parametrize("derivative", [*DERIVATIVES, *OVER_ROWS])
def test_the_reference_has_every_derivative(name, derivative, monkeypatch):
    monkeypatch.setenv("CREDIT_BACKEND", "array_api")
    function, plain, x = FUNCTIONS[name]
    differentiate = (DERIVATIVES | OVER_ROWS)[derivative]
    torch.testing.assert_close(differentiate(function, x), differentiate(plain, x), rtol=1e-9, atol=1e-12)


@every_function
def test_create_graph_alone_changes_nothing(path, name):
    """Hooks and optimizers ask for it that never differentiate the gradient."""
    function, plain, x = FUNCTIONS[name]
    gradients = []
    for f, create_graph in ((function, False), (function, True), (plain, False)):
        leaf = x.clone().requires_grad_()
        weights = torch.arange(1.0, ROWS + 1, dtype=torch.float64)
        loss = (f(leaf) * weights).sum()
        gradients.append(torch.autograd.grad(loss, leaf, create_graph=create_graph)[0].detach())
    assert torch.equal(*gradients[:2])
    torch.testing.assert_close(*gradients[1:])


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_compiled_function_refuses_a_second_derivative():
    function, _, x = FUNCTIONS["log p"]
    torch.compiler.reset()
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        penalize_gradient(torch.compile(function, fullgraph=True, backend="aot_eager"), x)
