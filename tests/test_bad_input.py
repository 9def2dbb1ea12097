"""Wrong rollouts are refused with a message that names what is wrong, or spoil their own row under jit."""

import numpy as np
import pytest
from named import NAMES, make
from running import arrays, on_numpy, quick_jit, run

import credit
from credit import DGPO, GRPO, Rollouts, validate
from credit.fields import EXTRAS, get_array, list_arrays, map_arrays, replace_arrays
from credit.selftest.estimators import GIVEN, draw_field
from credit.types import FIELDS

N, T = 4, 3


@pytest.fixture
def right():
    """Rollouts of numpy arrays that are right; a test replaces one field."""
    rng = np.random.default_rng(0)

    def token(low=0.0, high=1.0):
        return rng.uniform(low, high, size=(N, T)).astype(np.float32)

    rollouts = Rollouts(
        rewards=np.array([1, 0, 1, 0], np.float32),
        groups=np.array([0, 0, 3, 3]),
        mask=np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1], [1, 0, 0]], bool),
        log_probs=token(-3, 0),
        reference_log_probs=token(-3, 0),
        normalized_entropy=token(),
        deviation=token(),
        rollout_log_probs=token(-3, 0),
        token_rewards=token(-1, 1),
        turns=np.zeros((N, T), np.int64),
        baseline_rewards=np.zeros(N, np.float32),
        valid=np.ones(N, bool),
        progress=np.array(0.5, np.float32),
        extra={
            **{name.removeprefix("extra."): draw_field(rule, rng, N, T) for name, rule in EXTRAS.items()},
            **{"own_rows": np.zeros(N), "own_tokens": token(), "own_features": np.zeros((N, 2), np.int32)},
        },
    )
    unset = [name for name in Rollouts._fields if getattr(rollouts, name) is None]
    assert not unset, f"add {', '.join(unset)} to right() in this file"
    return rollouts


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


# --- shapes and kinds ------------------------------------------------------------------------------------

WRONG_SHAPES = {
    "rewards, a number": ({"rewards": zeros()}, r"rewards has shape \(\); expected \[N\] or \[N, K\]"),
    "rewards, [N, T, 1]": ({"rewards": zeros(N, T, 1)}, r"rewards has shape \(4, 3, 1\)"),
    "rewards, too few": ({"rewards": zeros(3)}, r"rewards has shape \(3,\), but the mask is .*\(4, 3\)"),
    "groups, too many": ({"groups": zeros(5, dtype=np.int64)}, r"groups has shape \(5,\)"),
    "groups, [N, T]": ({"groups": zeros(N, T, dtype=np.int64)}, r"groups has shape .*; expected \[N\]"),
    "groups, floats": ({"groups": zeros(N)}, r"groups are .*float32; expected integers"),
    "groups, bools": ({"groups": zeros(N, dtype=bool)}, r"groups are .*bool; expected integers"),
    "mask, [N]": ({"mask": zeros(N, dtype=bool)}, r"mask has shape \(4,\); expected \[N, T\]"),
    "deviation, [N, T + 1]": ({"deviation": zeros(N, T + 1)}, r"deviation has shape \(4, 4\)"),
    "entropy, [N, 1]": ({"normalized_entropy": zeros(N, 1)}, r"normalized_entropy has shape \(4, 1\)"),
    "log_probs, [N]": ({"log_probs": zeros(N)}, r"log_probs has shape \(4,\); expected \[N, T\]"),
    "turns, [1, T]": ({"turns": zeros(1, T, dtype=np.int64)}, r"turns has shape \(1, 3\)"),
    "valid, [N, T]": ({"valid": zeros(N, T, dtype=bool)}, r"valid has shape \(4, 3\); expected \[N\]"),
    "baseline, too few": ({"baseline_rewards": zeros(1)}, r"baseline_rewards has shape \(1,\)"),
    "progress, [1]": ({"progress": zeros(1)}, r"progress has shape \(1,\); expected \[\]"),
    "extra, 0-d": (
        {"extra": {"own": zeros()}},
        r"extra\.own has shape \(\); expected \[N\], \[N, T\] or \[N, K\]",
    ),
    "extra, 3-d": ({"extra": {"own": zeros(N, T, 1)}}, r"extra\.own has shape \(4, 3, 1\); expected \[N\], "),
    "extra, rows": ({"extra": {"own": zeros(3, T)}}, r"extra\.own has shape \(3, 3\), but the mask is"),
    "extra, states": ({"extra": {"states": zeros(N, T)}}, r"extra\.states are .*float32; expected integers"),
    "turns, floats": ({"turns": zeros(N, T)}, r"turns are .*float32; expected integers"),
    "extra, values": ({"extra": {"values": zeros(N)}}, r"extra\.values has shape \(4,\); expected \[N, T\]"),
    "rewards, None": ({"rewards": None}, "rollouts need rewards; it is None"),
    "mask, None": ({"mask": None}, "rollouts need mask; it is None"),
}


@pytest.mark.parametrize("case", WRONG_SHAPES)
def test_a_wrong_shape_is_named(library, right, case):
    changes, message = WRONG_SHAPES[case]
    given = arrays(library, right._replace(**changes))
    for function in (GRPO(), GRPO().keep, validate):
        with pytest.raises(ValueError, match=message):
            function(given)
    with pytest.raises(ValueError, match=message):
        library.quick(GRPO())(given)


@pytest.mark.parametrize(("rows", "tokens"), [(0, 3), (4, 0), (0, 0)])
def test_nothing_to_credit_is_said(library, right, rows, tokens):
    cut = map_arrays(lambda f: f[:rows, :tokens] if f.ndim == 2 else f[:rows] if f.ndim else f, right)
    for function in (GRPO(), GRPO().keep, validate):
        with pytest.raises(ValueError, match=rf"the mask is \[N, T\] = \({rows}, {tokens}\)"):
            function(arrays(library, cut))


@on_numpy("name", NAMES, everywhere=["dgpo"])
def test_a_reward_that_counts_must_be_finite(library, right, name):
    estimator = make(name)
    wrong = right._replace(rewards=np.array([1, 0, np.nan, 0], np.float32))
    with pytest.raises(ValueError, match=r"rewards\[2\] is nan; expected a finite number where `valid`"):
        estimator(arrays(library, wrong))
    several = right._replace(rewards=np.array([[1, 0], [0, np.inf], [1, 0], [0, 0]], np.float32))
    with pytest.raises(ValueError, match=r"rewards\[1, 1\] is inf; expected a finite number"):
        validate(arrays(library, several))
    left_out = wrong._replace(valid=np.array([True, True, False, True]))
    assert np.isfinite(run(library, estimator, left_out).advantages).all()


@pytest.mark.parametrize("name", ["rewards", "groups", "mask", "deviation", "progress"])
def test_a_list_is_no_array(library, right, name):
    given = arrays(library, right)._replace(**{name: getattr(right, name).tolist()})
    kind = "float" if name == "progress" else "list"
    with pytest.raises(ValueError, match=f"{name} is a {kind}; expected an array of numpy, torch, JAX"):
        GRPO()(given)


@pytest.mark.parametrize("name", ["rewards", "mask", "deviation", "valid"])
def test_arrays_of_two_libraries_are_refused(right, name):
    torch = pytest.importorskip("torch")
    given = right._replace(**{name: torch.from_numpy(getattr(right, name))})
    with pytest.raises(ValueError, match=rf"must be of one library; got .*\b{name}: torch"):
        GRPO()(given)


def test_arrays_on_two_devices_are_refused(right):
    torch = pytest.importorskip("torch")
    given = map_arrays(torch.from_numpy, right)
    given = given._replace(mask=given.mask.to("meta"))
    with pytest.raises(ValueError, match="must be on one device; got .*rewards: cpu.*mask: meta"):
        GRPO()(given)


@pytest.mark.parametrize(
    ("estimator", "absent", "message"),
    [
        (
            DGPO(),
            ["deviation"],
            "dgpo needs deviation and normalized_entropy; deviation of the rollouts is None",
        ),
        (DGPO(), ["normalized_entropy"], "needs .*; normalized_entropy of the rollouts is None"),
        (
            DGPO(),
            ["deviation", "normalized_entropy"],
            "; deviation and normalized_entropy of the rollouts are None",
        ),
        (DGPO(kappa=0), ["deviation"], "dgpo needs deviation; deviation of the rollouts is None"),
    ],
    ids=["deviation", "entropy", "both", "kappa=0"],
)
def test_missing_statistics_are_named(library, right, estimator, absent, message):
    given = arrays(library, right._replace(**dict.fromkeys(absent)))
    with pytest.raises(ValueError, match=message) as caught:
        estimator(given)
    assert "credit.token_statistics computes them" in str(caught.value)


@on_numpy("name", NAMES, everywhere=["dgpo"])
def test_what_an_estimator_does_not_need_may_be_missing(library, right, name):
    estimator = make(name)
    needed = {"rewards", "groups", "mask", *estimator.needs}
    rest = dict.fromkeys(list_arrays(right).keys() - needed)
    np.testing.assert_array_equal(
        run(library, estimator, replace_arrays(right, rest)).advantages,
        run(library, estimator, right).advantages,
    )


# --- group ids -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [-1, N, 10**6])
def test_a_group_id_out_of_range_is_named(library, right, bad):
    groups = right.groups.copy()
    groups[2] = bad
    given = arrays(library, right._replace(groups=groups))
    for function in (GRPO(), GRPO().keep, credit.DAPO().keep, validate):
        with pytest.raises(ValueError, match=rf"groups\[2\] is {bad}; expected an integer in 0\.\.3"):
            function(given)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [-1, N])
def test_under_jit_a_group_id_out_of_range_spoils_its_own_row(right, name, bad):
    jax = pytest.importorskip("jax")
    given = jax.tree.map(jax.numpy.asarray, right)
    alone = given._replace(valid=given.valid.at[2].set(False))
    spoilt = given._replace(groups=given.groups.at[2].set(bad))
    estimator = make(name)
    actual, expected = (quick_jit(estimator)(rollouts).advantages for rollouts in (spoilt, alone))
    mask = right.mask[2]
    assert np.isnan(actual[2][mask]).all()
    assert (actual[2][~mask] == 0).all()
    others = np.array([0, 1, 3])
    np.testing.assert_array_equal(actual[others], expected[others])


# --- the table of fields ---------------------------------------------------------------------------------


def test_every_field_has_a_rule_and_every_rule_a_case():
    without = [name for name in Rollouts._fields if name not in (*FIELDS, "extra")]
    assert not without, f"add a rule for {', '.join(without)} to the list behind FIELDS in credit/types.py"
    assert (*FIELDS, "extra") == Rollouts._fields, (
        "FIELDS has the fields of Rollouts but extra in the same order, and no others"
    )
    rules = (FIELDS | EXTRAS).items()
    checked = {name for name, rule in rules if rule.values and rule.shape == "[N, T]"} - {"mask"}
    cases = WRONG_VALUES.keys() - {"mask"}
    assert checked <= cases, f"add {', '.join(sorted(checked - cases))} to WRONG_VALUES in this file"
    assert cases <= checked, f"the rules of {', '.join(sorted(cases - checked))} name no values to expect"


def test_the_table_tells_the_statistics_from_the_models():
    from_models = [name for name, rule in FIELDS.items() if rule.source in ("policy", "reference")]
    assert tuple(from_models) == credit.TokenStatistics._fields


def test_a_field_drawn_by_its_rule_is_valid(right):
    rng = np.random.default_rng(0)
    for name, rule in (FIELDS | EXTRAS).items():
        if name in GIVEN:
            continue
        drawn = draw_field(rule, rng, N, T)
        assert drawn.shape == get_array(right, name).shape
        assert validate(replace_arrays(right, {name: drawn})) is None


# --- validate --------------------------------------------------------------------------------------------


def test_validate_accepts_what_is_right(library, right):
    assert validate(arrays(library, right)) is None
    assert validate(arrays(library, Rollouts(*right[:3]))) is None


WRONG_VALUES = {
    "mask": (2, r"mask\[1, 2\] is 2; expected 0 or 1"),
    "log_probs": (0.5, r"log_probs\[1, 2\] is 0\.5; expected a log-probability"),
    "reference_log_probs": (np.nan, r"reference_log_probs\[1, 2\] is nan; expected a log-probability"),
    "rollout_log_probs": (np.inf, r"rollout_log_probs\[1, 2\] is inf; expected a log-probability"),
    "normalized_entropy": (1.25, r"normalized_entropy\[1, 2\] is 1\.25; expected a number in \[0, 1\]"),
    "deviation": (-0.25, r"deviation\[1, 2\] is -0\.25; expected a number in \[0, 1\]"),
    "token_rewards": (np.inf, r"token_rewards\[1, 2\] is inf; expected a finite number"),
    "turns": (3, r"turns\[1, 2\] is 3; expected an integer in 0\.\.2"),
    "extra.token_ids": (-1, r"extra\.token_ids\[1, 2\] is -1; expected an id, at least 0"),
    "extra.planning": (2, r"extra\.planning\[1, 2\] is 2; expected 0 or 1"),
    "extra.values": (np.nan, r"extra\.values\[1, 2\] is nan; expected a finite number"),
    "extra.teacher_log_probs": (0.5, r"extra\.teacher_log_probs\[1, 2\] is 0\.5; expected a log-probability"),
    "extra.sum_squares": (1.5, r"extra\.sum_squares\[1, 2\] is 1\.5; expected a number in \[0, 1\]"),
    "extra.entropy": (-0.5, r"extra\.entropy\[1, 2\] is -0\.5; expected a number of nats, at least 0"),
    "extra.kl": (-0.5, r"extra\.kl\[1, 2\] is -0\.5; expected a number of nats, at least 0"),
    "extra.reverse_kl": (np.nan, r"extra\.reverse_kl\[1, 2\] is nan; expected a number of nats"),
}


@pytest.mark.parametrize("name", WRONG_VALUES)
def test_validate_names_the_place_of_a_wrong_value(library, right, name):
    value, message = WRONG_VALUES[name]
    array = get_array(right, name)
    array = array.astype(np.int64 if array.dtype == bool else array.dtype)
    array[1, 2] = value
    with pytest.raises(ValueError, match=message):
        validate(arrays(library, replace_arrays(right, {name: array})))


def test_validate_names_a_turn_that_goes_back(library, right):
    turns = np.array([[0, 1, 0], [0, 1, 0], [1, 0, 0], [2, 0, 0]])
    with pytest.raises(ValueError, match=r"turns\[1, 2\] is 0; expected no lower number than at an earlier"):
        validate(arrays(library, right._replace(turns=turns)))


@pytest.mark.parametrize("name", ["deviation", "normalized_entropy", "log_probs"])
def test_validate_finds_nan(library, right, name):
    array = getattr(right, name).copy()
    array[3, 0] = np.nan
    with pytest.raises(ValueError, match=rf"{name}\[3, 0\] is nan"):
        validate(arrays(library, right._replace(**{name: array})))


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan])
def test_validate_checks_the_progress(library, right, value):
    with pytest.raises(ValueError, match="progress is .*; expected a number in"):
        validate(arrays(library, right._replace(progress=np.array(value, np.float32))))


def test_validate_does_not_look_under_the_mask_or_at_invalid_rows(library, right):
    for name in WRONG_VALUES.keys() - {"mask"}:
        array = get_array(right, name).copy()
        array[0, 2] = -1 if array.dtype.kind == "i" else np.nan
        array[1] = -7 if array.dtype.kind == "i" else np.inf
        given = replace_arrays(right, {"valid": np.array([True, False, True, True]), name: array})
        assert validate(arrays(library, given)) is None
        by_reward = given._replace(valid=None, rewards=np.array([1, np.nan, 1, 0], np.float32))
        assert validate(arrays(library, by_reward)) is None


def test_validate_reads_low_precision(right):
    torch = pytest.importorskip("torch")
    given = map_arrays(torch.from_numpy, right)
    given = given._replace(deviation=given.deviation.bfloat16() + 2)
    with pytest.raises(ValueError, match=r"deviation\[0, 0\] is 2\."):
        validate(given)
