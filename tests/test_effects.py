"""Every setting does something, or is refused: there is none that is accepted and has no effect."""

from typing import Literal

import numpy as np
import pytest
from named import NAMES, PACKAGE, REQUIRED, make
from pydantic import ValidationError

import credit
from credit import PolicyLoss
from credit.selftest.estimators import make_rollouts

NUMBERS = (0, 1, 2, 3, 0.3, 0.9, 7.5, float("inf"), 40, 2.5e-3)
VALUES = (
    *NUMBERS,
    "uniform",
    "inverse",
    "turn",
    "tokens",
    "both",
    "nonzero_rewards",
    "batch",
    "reference",
    (2.0,),
    "rloo",
)
GIVEN = make_rollouts()._replace(rewards=np.linspace(-1, 2, 8))
# What turns a setting on or off, so that others lose their effect.
SWITCHES = {
    "dgpo": [{"effective_fraction": 0.5}, {"tau": float("inf")}, {"within": "turn"}, {"kappa": 0}],
    "entropy_shaped": [{"alpha": 0}],
    "gae": [{"divide_by_std": False}],
    "gigpo": [{"step_weight": 0}, {"divide_by_std": False}],
    "grpo_s": [{"beta_2": 0}],
    "mt_grpo": [{"turn_weight": 0}],
    "opd": [{"outcome_weight": 0}],
    "reinforce_plus_plus": [{"divide_by_std": False}],
    "reinforce_plus_plus_baseline": [{"divide_by_std": False}],
}
LOSS_SWITCHES = [
    {},
    {"objective": "cispo"},
    {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4},
    {"aggregation": "fixed_horizon", "horizon": 7},
    {"kl_coefficient": 0.1},
    {"objective": "sapo"},
    {"objective": "vespo"},
    {"objective": "gmpo", "clip_low": 0.4, "clip_high": 0.4},
    {"objective": "dppo_kl", "clip_low": 0.05, "clip_high": 0.05},
    {"objective": "clip_cov", "covariance_fraction": 0.3, "covariance_low": -1.0},
    {"objective": "clip_cov", "covariance_fraction": 0.3, "covariance_high": 4.0},
    {"objective": "kl_cov", "covariance_fraction": 0.3},
    {"rollout_cap": 2.0},
]


def results(estimator):
    result = estimator(GIVEN)
    several = np.zeros((8, 41)) + GIVEN.rewards[:, None] * (np.arange(41) == 0)
    kept = estimator.keep(GIVEN._replace(rewards=several))
    numbers = [result.advantages, result.weights, kept, *result.metrics.values()]
    return [estimator.needs, *result.metrics], [np.asarray(each, float).tobytes() for each in numbers]


def try_values(make_one, field, default):
    """What each of the VALUES makes that differs from the default and is accepted."""
    made = []
    for value in VALUES:
        try:
            one = make_one(value)
        except ValidationError:
            continue
        if getattr(one, field) != default:
            made.append(one)
    return made


@pytest.mark.filterwarnings("ignore:effective_fraction is missed")
@pytest.mark.parametrize("name", NAMES)
def test_an_accepted_setting_changes_the_result(name):
    kind, tried = PACKAGE[name], set()
    fields = set(kind.model_fields) - {"name", "loss", "parts"}
    for switch in [{}, *SWITCHES.get(name, [])]:
        base = REQUIRED.get(name, {}) | switch
        plain, usual = results(kind(**base)), kind(**base)
        for field in fields - set(switch):

            def changed(value, field=field, base=base):
                return kind(**base | {field: value})

            made = try_values(changed, field, getattr(usual, field))
            assert not made or any(results(one) != plain for one in made), (switch, field)
            tried |= {field} if made else set()
        tried |= set(switch)
    assert tried == fields, f"no value of VALUES suits {fields - tried} of {name}; add one"


def loss_results(loss):
    rng = np.random.default_rng(0)
    new, old, reference, rollout = rng.normal(-2, 1, (4, 5, 6))
    mask = np.arange(6) < rng.integers(1, 7, (5, 1))
    value, metrics = loss(
        new, old, rng.normal(size=(5, 6)), mask, reference_log_probs=reference, rollout_log_probs=rollout
    )
    return float(value), {name: float(each) for name, each in metrics.items()}


@pytest.mark.parametrize("switch", LOSS_SWITCHES, ids=str)
def test_an_accepted_setting_changes_the_loss(switch):
    further = ("sequence", "cispo", "token_mean", "k1", 0.1, 4, "mask", (2, 2))
    plain = loss_results(PolicyLoss(**switch))
    for field in set(PolicyLoss.model_fields) - set(switch):
        clips = {"clip_low": 0.1, "clip_high": 0.1} if field == "ratio" else {}
        made = []
        for value in (*VALUES, *further):
            try:
                made.append(PolicyLoss(**switch | clips | {field: value}))
            except ValidationError:
                continue
        made = [each for each in made if getattr(each, field) != PolicyLoss.model_fields[field].default]
        assert not made or any(loss_results(each) != plain for each in made), field


WITHOUT_EFFECT = [
    ("dgpo", {"effective_fraction": 0.5, "tau": 0.1}, "tau=0.1 has no effect with effective_fraction"),
    ("dgpo", {"effective_fraction": 0.5, "tau": "inf"}, "tau=inf has no effect with effective_fraction"),
    ("dgpo", {"tau_min": 0.01}, "tau_min=0.01 has no effect without effective_fraction"),
    ("dgpo", {"floor": 1e-3}, "floor=0.001 has no effect without effective_fraction"),
    ("dgpo", {"tau": "inf", "negative": "uniform"}, "negative='uniform' has no effect with tau=inf"),
    ("dgpo", {"tau": "inf", "within": "turn"}, "within='turn' has no effect with tau=inf"),
    ("mt_grpo", {"turn_weight": 0, "gamma": 0.9}, "gamma=0.9 has no effect with turn_weight=0"),
    ("gigpo", {"step_weight": 0, "gamma": 0.5}, "gamma=0.5 has no effect with step_weight=0"),
    ("gigpo", {"divide_by_std": False, "eps": 1e-3}, "eps=0.001 has no effect with divide_by_std=False"),
    (
        "gae",
        {"divide_by_std": False, "whiten_correction": 0},
        "whiten_correction=0 has no effect with divide_by_std=False",
    ),
    ("grpo_s", {"beta_2": 0, "least": 1e-3}, "least=0.001 has no effect with beta_2=0"),
    ("entropy_shaped", {"alpha": 0, "kappa": 3}, "kappa=3.0 has no effect with alpha=0"),
    ("dgpo", {"base": "rloo", "eps": 0.1}, r"eps=0.1 has no effect with a base \(rloo\)"),
    ("top_entropy", {"base": "rloo", "correction": 0}, r"correction=0 has no effect with a base \(rloo\)"),
    (
        "dgpo",
        {"base": {"name": "rloo", "loss": {"clip_low": 0.1}}},
        r"in the base \(rloo\) of dgpo, whose loss is its own",
    ),
    ("opd", {"outcome_weight": 0, "eps": 1e-3}, "eps=0.001 has no effect with outcome_weight=0"),
    ("grpo", {"loss": {"kl": "k1"}}, "kl='k1' has no effect without kl_coefficient"),
    (
        "mix",
        {"parts": [[1, {"name": "grpo", "loss": {"clip_low": 0.1}}]]},
        r"of a mix, whose loss is its own",
    ),
]


@pytest.mark.parametrize(("name", "settings", "message"), WITHOUT_EFFECT, ids=str)
def test_a_setting_without_effect_is_refused_and_at_its_default_read_back(name, settings, message):
    with pytest.raises(ValueError, match=f"{message}(.|\n)*; leave it out, or.*set it to"):
        credit.parse({"name": name, **settings})
    plain = make(name)
    for switch in SWITCHES.get(name, []):
        estimator = type(plain)(**REQUIRED.get(name, {}), **switch)
        assert credit.parse(estimator.model_dump()) == estimator


def test_a_default_of_a_subclass_is_no_setting_by_hand():
    class Aimed(credit.DGPO):
        name: Literal["aimed_for_effects"] = "aimed_for_effects"
        tau: float = 0.1
        effective_fraction: float = 0.5

    assert credit.parse(Aimed().model_dump()) == Aimed()
    with pytest.raises(ValueError, match="tau=0.2 has no effect with effective_fraction"):
        Aimed(tau=0.2)
