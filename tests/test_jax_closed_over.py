"""Every public function inside JAX's transformations, with each array closed over in turn and the others traced.

What a traced function closes over is concrete, so that its values may be checked; but whatever is computed from
it belongs to the program, and has none. Nothing is compiled here: errors come while a function is traced.
"""

from functools import partial

import numpy as np
import pytest
from named import NAMES, make

import credit
from credit import groups, tokens
from credit.fields import EXTRA, get_array, replace_arrays
from credit.selftest.estimators import make_rollouts

jax = pytest.importorskip("jax")
jnp = jax.numpy

N, T, V, D = 8, 10, 12, 4  # N and T are those of make_rollouts
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


ROLLOUTS = make_rollouts()._replace(valid=np.ones(N, bool))
IDS = {"token_ids": RNG.integers(V, size=N).astype(np.int32), "temperature": np.ones(N, np.float32)}
LOGITS = {"logits": normal(N, V)} | IDS
PAIR = {"policy_logits": normal(N, V), "reference_logits": normal(N, V)} | IDS
HIDDEN = {"hidden": normal(N, D), "head": normal(V, D), "bias": normal(V)} | IDS
HIDDEN_PAIR = {
    f"{side}_{name}": HIDDEN[name] for side in ("policy", "reference") for name in ("hidden", "head", "bias")
}
CHOSEN = {"mask": np.arange(N) % 3 > 0}
ROWS = {"rewards": ROLLOUTS.rewards, "groups": ROLLOUTS.groups, "valid": ROLLOUTS.valid}
TOKENS = {"values": normal(N, T), "mask": ROLLOUTS.mask}
SCORE = {"score": np.abs(normal(N, T)), "mask": ROLLOUTS.mask}
LOG_PROBS = {
    name: -np.abs(normal(N, T))
    for name in ("log_probs", "old_log_probs", "reference_log_probs", "rollout_log_probs")
}
DIVERGENCE = {name: -np.abs(normal(N, T)) for name in ("log_probs", "reference_log_probs")}
FLAG = {"flag": ROLLOUTS.valid, "groups": ROLLOUTS.groups, "valid": ROLLOUTS.valid}


def on_rollouts(name, method="__call__"):
    def function(**fields):
        own = {field: fields.pop(field) for field in [*fields] if field.startswith(EXTRA)}
        result = getattr(make(name), method)(replace_arrays(credit.Rollouts(**fields), own))
        return result._asdict() if isinstance(result, credit.Credit) else result

    given = ("rewards", "groups", "mask", "valid", *make(name).required_fields)
    return function, {field: get_array(ROLLOUTS, field) for field in given}


def policy_loss():
    loss = credit.PolicyLoss(kl_coefficient=0.1, rollout_cap=2.0, dual_clip=3.0)
    normalizer = {"normalizer": np.asarray(7.0, np.float32)}
    return lambda **a: loss(**a), LOG_PROBS | {"advantages": normal(N), "mask": ROLLOUTS.mask} | normalizer


to_fraction = partial(tokens.redistribute_to_fraction, fraction=0.5, tau_min=0.1, floor=0.0)
CASES = {
    "token_statistics": (credit.token_statistics, PAIR | CHOSEN),
    "token_statistics_from_hidden": (credit.token_statistics_from_hidden, HIDDEN_PAIR | IDS | CHOSEN),
    "log_probs_and_entropy": (credit.log_probs_and_entropy, LOGITS),
    "selected_log_probs": (credit.selected_log_probs, LOGITS),
    "selected_log_probs_from_hidden": (credit.selected_log_probs_from_hidden, HIDDEN),
    "top_k_deviation": (credit.top_k_deviation, DIVERGENCE),
    "binary_deviation": (credit.binary_deviation, DIVERGENCE),
    "PolicyLoss": policy_loss(),
    "overlong_penalty": (
        partial(credit.overlong_penalty, max_length=8, cache_length=4),
        {"lengths": np.arange(N)},
    ),
    "Schedule": (credit.Schedule(start=1.0, end=0.5).at, {"progress": np.asarray(0.5, np.float32)}),
    "groups.size": (partial(groups.size, dtype=np.float32), {k: ROWS[k] for k in ("valid", "groups")}),
    "groups.center": (groups.center, ROWS | {"weights": np.abs(normal(N))}),
    "groups.std": (partial(groups.std, correction=1), ROWS),
    "groups.standardize": (partial(groups.standardize, correction=1, eps=1e-4), ROWS),
    "groups.standardize by others": (
        partial(groups.standardize, correction=1, eps=1e-4, leave_one_out=True),
        ROWS,
    ),
    "groups.leave_one_out": (groups.leave_one_out, ROWS),
    "groups.varies": (groups.varies, ROWS),
    "groups.fraction": (partial(groups.fraction, dtype=np.float32), FLAG),
    "groups.divide_or_keep": (groups.divide_or_keep, {"centered": normal(N), "scale": np.abs(normal(N))}),
    "tokens.length": (partial(tokens.length, dtype=np.float32), {"mask": ROLLOUTS.mask}),
    "tokens.turns": (tokens.turns, {"mask": ROLLOUTS.mask}),
    "tokens.following": (tokens.following, TOKENS),
    "tokens.whiten": (tokens.whiten, TOKENS),
    "tokens.mean": (tokens.mean, TOKENS),
    "tokens.extreme": (partial(tokens.extreme, largest=True), TOKENS),
    "tokens.quantile": (partial(tokens.quantile, q=0.3), TOKENS),
    "tokens.redistribute": (partial(tokens.redistribute, tau=0.5), SCORE),
    "tokens.redistribute_to_fraction": (to_fraction, SCORE),
    "tokens.returns_to_go": (
        tokens.returns_to_go,
        {"rewards": normal(N, T), "mask": ROLLOUTS.mask, "gamma": np.abs(normal(N, T))},
    ),
    **{name: on_rollouts(name) for name in NAMES},
    "factors": on_rollouts("dgpo", "factors"),
    "keep": on_rollouts("dapo", "keep"),
    "returns": on_rollouts("reinforce_plus_plus", "returns"),
}


def is_float(array):
    return np.issubdtype(array.dtype, np.floating)


def value_and_grad(function, traced):
    floats = {name: array for name, array in traced.items() if is_float(array)}
    others = {name: array for name, array in traced.items() if name not in floats}

    def total(floats):
        leaves = jax.tree.leaves(function(floats | others))
        return sum(jnp.sum(leaf) for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)) + 0.0

    return jax.value_and_grad(total)(floats)


def with_axis(arrays):
    return jax.tree.map(lambda array: array[None], arrays)


TRANSFORMS = {
    "jit": lambda function, traced: jax.jit(function)(traced),
    "value_and_grad": value_and_grad,
    "checkpoint": lambda function, traced: jax.checkpoint(function)(traced),
    "scan": lambda function, traced: jax.lax.scan(lambda c, x: (c, function(x)), 0, with_axis(traced)),
    "vmap": lambda function, traced: jax.vmap(function)(with_axis(traced)),
}


def trace(function, arrays, closed_over, transform):
    """Traces the function of the other arrays within a transformation within jit."""
    arrays = {name: jnp.asarray(array) for name, array in arrays.items()}
    constant = {name: arrays.pop(name) for name in closed_over}

    def call(traced):
        given = {name: array for name, array in traced.items() if name != "unread"}
        return function(**given | constant)

    unread = {"unread": jnp.zeros(2)}  # so that something is traced even where all is closed over
    return jax.eval_shape(partial(TRANSFORMS[transform], call), arrays | unread)


def choose_closed_over(arrays):
    """Each array alone, all but each, and all."""
    names = set(arrays)
    return [*({name} for name in arrays), *(names - {name} for name in arrays), names]


USUAL = ("dgpo", "grpo")  # other estimators are prepared alike, and slow to trace
PAIRS = [
    pytest.param(n, t, marks=pytest.mark.slow if n in NAMES and n not in USUAL and t != "jit" else ())
    for n in CASES
    for t in TRANSFORMS
]


@pytest.mark.parametrize(("name", "transform"), PAIRS)
def test_any_array_may_be_closed_over(name, transform):
    function, arrays = CASES[name]
    for closed_over in choose_closed_over(arrays):
        try:
            trace(function, arrays, closed_over, transform)
        except Exception as error:
            raise AssertionError(f"{name} within {transform}, closed over {sorted(closed_over)}") from error


def test_every_public_function_is_among_them():
    modules = {"groups": groups, "tokens": tokens}
    public = {f"{name}.{n}" for name, module in modules.items() for n in module.__all__}
    public |= {n for n in credit.__all__ if n.islower() and n not in modules}
    # Functions of names and text, one that looks at every value, and one that returns functions.
    assert public - set(CASES) == {"get", "names", "parse", "validate", "tokens.make_reducers"}


WRONG = {
    "token_ids": np.full(N, V, np.int32),
    "temperature": np.zeros(N, np.float32),
    "groups": np.full(N, N, np.int32),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(
    ("name", "field"),
    [("token_statistics", "token_ids"), ("selected_log_probs", "temperature"), ("grpo", "groups")],
)
def test_values_that_are_closed_over_are_checked(name, field, transform):
    function, arrays = CASES[name]
    for closed_over in ({field}, {field, "mask"} & set(arrays), set(arrays)):
        if not (name == "token_statistics" and "mask" not in closed_over):  # it says which ids are read
            with pytest.raises(ValueError, match=f"{field}.* is .*; expected"):
                trace(function, arrays | {field: WRONG[field]}, closed_over, transform)


def test_ids_outside_a_mask_that_is_closed_over_are_not_read():
    arrays = PAIR | CHOSEN | {"token_ids": np.where(CHOSEN["mask"], PAIR["token_ids"], -100)}
    trace(credit.token_statistics, arrays, {"token_ids", "mask"}, "jit")


def test_rollouts_that_are_closed_over_can_be_validated():
    trace(lambda: credit.validate(ROLLOUTS), {}, (), "jit")
    with pytest.raises(ValueError, match="groups"):
        trace(lambda: credit.validate(ROLLOUTS._replace(groups=WRONG["groups"])), {}, (), "jit")
