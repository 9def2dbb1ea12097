"""Every objective and rollout rule of PolicyLoss: loss, metrics and gradient against the formulas in loops."""

from typing import get_args

import loss_oracle
import numpy as np
import pytest
import running

import credit
from credit import PolicyLoss
from credit.losses.objectives import OBJECTIVES
from credit.losses.papers import PAPERS

N, T = 6, 5
GSPO_TOKEN = PolicyLoss(ratio="sequence", clip_low=0.05, clip_high=0.1)
CASES = {
    "gspo_token": GSPO_TOKEN,
    "cispo": PolicyLoss(objective="cispo", clip_high=0.28, aggregation="token_mean"),
    "sapo": PolicyLoss(objective="sapo"),
    "sapo of sequences": PolicyLoss(
        objective="sapo", ratio="sequence", temperature_positive=3.0, temperature_negative=7.0
    ),
    "vespo": PolicyLoss(objective="vespo", kernel_positive=(2.0, 1.0), aggregation="token_mean"),
    "gmpo": PolicyLoss(objective="gmpo", clip_low=0.1, clip_high=0.2, kl_coefficient=0.1, kl="k2"),
    "dppo_tv": PolicyLoss(objective="dppo_tv", clip_low=0.02, clip_high=0.04, ratio_cap=1.3),
    "dppo_kl": PolicyLoss(objective="dppo_kl", clip_low=0.01, clip_high=0.02, aggregation="sequence_sum"),
    "clip_cov": PolicyLoss(
        objective="clip_cov", covariance_fraction=0.3, covariance_low=-0.5, covariance_high=0.6
    ),
    "clip_cov of all": PolicyLoss(objective="clip_cov", covariance_fraction=1.0, covariance_low=0.1),
    "kl_cov": PolicyLoss(objective="kl_cov", covariance_fraction=0.3, covariance_penalty=0.5),
    "icepop": PolicyLoss(rollout_rule="mask", rollout_floor=0.7, rollout_cap=1.3),
    "masked sequences": PolicyLoss(
        rollout_rule="mask", rollout_level="sequence", rollout_cap=1.2, kl_coefficient=0.1, kl="k1"
    ),
    "truncated sequences": PolicyLoss(rollout_level="sequence", rollout_floor=0.8, rollout_cap=1.2),
}
every_case = pytest.mark.parametrize("name", CASES)


def draw(seed, rows=N):
    """Arguments by name, in float32: ragged responses, one of them empty, ratios beyond every clip."""
    rng = np.random.default_rng(seed)
    mask = np.arange(T) < rng.integers(1, T + 1, (rows, 1))
    mask[rng.integers(rows)] = False
    old = -rng.exponential(size=(rows, T)) - 0.05
    new, reference, rollout = np.minimum(old + rng.normal(scale=0.4, size=(3, rows, T)), -0.01)
    advantages = rng.normal(size=(rows, T))
    advantages[0, 0] = 0.0
    given = (new, old, advantages, mask, reference, rollout)
    return [array if array.dtype == bool else array.astype(np.float32) for array in given]


def call(loss, new, old, advantages, mask, reference, rollout):
    return loss(new, old, advantages, mask, reference_log_probs=reference, rollout_log_probs=rollout)


def differentiate(library, loss, given):
    """Loss, metrics and gradient (None on numpy and array_api_strict) as numpy arrays; jitted on JAX."""
    new, *others = (library.asarray(array) for array in given)
    gradient = None
    if library.name == "jax":
        import jax

        function = jax.value_and_grad(lambda x, *rest: call(loss, x, *rest), has_aux=True)
        (value, metrics), gradient = running.quick_jit(function)(new, *others)
    elif library.name == "torch":
        value, metrics = call(loss, new.requires_grad_(), *others)
        value.backward()
        gradient = new.grad
    else:
        value, metrics = call(loss, new, *others)
    metrics = {name: library.numpy(metric) for name, metric in metrics.items()}
    return library.numpy(value), metrics, None if gradient is None else library.numpy(gradient)


def test_every_objective_and_paper_is_compared():
    assert set(get_args(PolicyLoss.model_fields["objective"].annotation)) == OBJECTIVES.keys()
    compared = {loss.objective for loss in CASES.values()}
    assert compared | {"clip"} == OBJECTIVES.keys(), (
        "add the objective to CASES, and its formula to loss_oracle"
    )
    assert set(PAPERS) - {"gspo"} <= CASES.keys()


COMPILED = (
    "gspo_token",
    "cispo",
    "sapo",
    "vespo",
    "gmpo",
    "dppo_tv",
    "dppo_kl",
    "clip_cov",
    "kl_cov",
    "icepop",
)


@running.on_numpy("name", list(CASES), also=["torch", "strict"], everywhere=COMPILED)
def test_loss_metrics_and_gradient_equal_the_oracle(library, name):
    loss, flagged = CASES[name], 0.0
    for seed in range(3 if library.name == "jax" else 20):
        given = draw(seed)
        value, metrics, gradient = differentiate(library, loss, given)
        right, right_metrics = loss_oracle.policy_loss(loss, *given)
        np.testing.assert_allclose(value, right, rtol=1e-5, atol=1e-6)
        assert metrics.keys() == right_metrics.keys()
        for key, metric in metrics.items():
            np.testing.assert_allclose(metric, right_metrics[key], rtol=1e-5, atol=1e-6, err_msg=key)
            flagged += float(metric) if "fraction" in key else 0.0
        if gradient is not None:
            slopes = loss_oracle.policy_gradient(loss, *given)
            np.testing.assert_allclose(gradient, slopes, rtol=1e-4, atol=1e-6)
    assert flagged > 0 or loss.objective in ("sapo", "vespo")


@pytest.mark.parametrize("name", ["sapo", "dppo_kl", "clip_cov", "kl_cov", "icepop"])
def test_the_slopes_of_the_oracle_are_those_of_its_values(name):
    """Where the formula stops no gradient, so that the slopes beside the values are not on trust alone."""
    loss, step = CASES[name], 1e-6
    new, *others = draw(0)
    slopes = loss_oracle.policy_gradient(loss, new, *others)
    for place in map(tuple, np.argwhere(others[2]).tolist()):
        moved = np.zeros((N, T))
        moved[place] = step
        up, down = (loss_oracle.policy_loss(loss, new + sign * moved, *others)[0] for sign in (1, -1))
        np.testing.assert_allclose((up - down) / (2 * step), slopes[place], rtol=1e-4, atol=1e-6)


@every_case
def test_what_is_outside_the_mask_and_padding_change_nothing(name):
    given, dirty, wide = draw(1), [], []
    mask = given[3]
    garbage = np.random.default_rng(0).choice(np.array([np.nan, np.inf, -np.inf, 1e30], np.float32), (N, T))
    for array in given:
        dirty.append(array if array is mask else np.where(mask, array, garbage))
        padding = np.zeros((N, 3), bool) if array is mask else np.ones((N, 3), np.float32)
        wide.append(np.concatenate([padding, array, padding], axis=1))
    plain, plain_metrics = call(CASES[name], *given)
    for other, rtol in ((dirty, 0.0), (wide, 1e-5)):
        value, metrics = call(CASES[name], *other)
        np.testing.assert_allclose(value, plain, rtol=rtol)
        for key, metric in metrics.items():
            np.testing.assert_allclose(metric, plain_metrics[key], rtol=rtol, atol=rtol / 100, err_msg=key)


@every_case
def test_parts_add_up_to_the_whole_but_where_tokens_are_compared(name):
    loss, given = CASES[name], draw(1)
    mask = given[3]
    count = float(mask.sum() if loss.aggregation == "token_mean" else mask.any(axis=1).sum())
    parts = [[array[rows] for array in given] for rows in (slice(0, 2), slice(2, N))]
    total = sum(
        loss(*part[:4], reference_log_probs=part[4], rollout_log_probs=part[5], normalizer=count)[0]
        for part in parts
    )
    equal = np.isclose(total, call(loss, *given)[0], rtol=1e-5)
    assert equal == (not loss.objective.endswith("_cov"))


@pytest.mark.parametrize("name", [name for name in PAPERS if not name.endswith("_cov")])
def test_the_first_step_of_every_paper_is_the_plain_policy_gradient(name):
    """Where p = p_old = p_rollout, no token is held back and every gate has the slope 1."""
    torch = pytest.importorskip("torch")
    new, _, advantages, mask, *_ = (torch.tensor(array) for array in draw(3))
    loss = PolicyLoss.from_paper(name, aggregation="token_mean")
    old = new.clone()
    loss(new.requires_grad_(), old, advantages, mask, rollout_log_probs=old)[0].backward()
    expected = torch.where(mask, -advantages, 0.0) / mask.sum()
    torch.testing.assert_close(new.grad, expected, rtol=1e-5, atol=1e-7)


def test_gspo_token_clips_token_by_token_with_the_ratio_of_the_response():
    """Ratios 2 and 1/8 have the geometric mean 1/2, 4 and 1 have 2: the clips hold the signs that go beyond."""
    torch = pytest.importorskip("torch")
    old = torch.full((2, 2), 1 / 8).double().log()
    new = (old + torch.tensor([[2, 1 / 8], [4, 1]]).double().log()).requires_grad_()
    advantages = torch.tensor([[3.0, -5.0], [7.0, -11.0]]).double()
    loss = PolicyLoss.from_paper("gspo_token", clip_low=0.2, clip_high=0.2, aggregation="token_mean")
    value, metrics = loss(new, old, advantages, torch.ones(2, 2))
    value.backward()
    # A > 0 is held above 1.2 and A < 0 below 0.8; the others keep s_i A of their own.
    slopes = torch.tensor([[-0.5 * 3, 0.0], [0.0, 2 * 11]]).double()
    torch.testing.assert_close(new.grad, slopes / 4)
    assert value.item() == pytest.approx((-0.5 * 3 + 0.8 * 5 - 1.2 * 7 + 2 * 11) / 4)
    assert metrics["clip_fraction_low"] == metrics["clip_fraction_high"] == 0.25


def test_clip_cov_takes_the_middle_of_runs_and_kl_cov_the_largest():
    """Covariances (A - mean) (log p - mean) of 4, 1, 0, 1, 4 for A and log p that rise together."""
    new = np.array([[-5.0, -4.0, -3.0, -2.0, -1.0]])
    given = new, new, np.array([[-2.0, -1.0, 0.0, 1.0, 2.0]]), np.ones((1, 5), bool)
    settings = {"aggregation": "sequence_sum", "covariance_fraction": 0.4}
    loss = PolicyLoss(objective="clip_cov", covariance_low=0.5, **settings)
    # Two of the four candidates: the second of the runs (4, 1) and (1, 4), that is A = -1 and 2.
    value, metrics = loss(*given)
    assert float(value) == 2.0 - 1.0
    assert metrics["clip_fraction_covariance"] == 0.4
    loss = PolicyLoss(objective="kl_cov", covariance_penalty=3.0, **settings)
    value, metrics = loss(new, new - 1.0, *given[2:])
    assert float(value) == pytest.approx(2 * 3.0)  # ratios of e, whose A add up to 0
    assert metrics["penalized_fraction"] == 0.4


@pytest.mark.parametrize("objective", ["dppo_tv", "dppo_kl"])
def test_a_log_prob_that_rounding_put_above_0_is_held_back_too(objective):
    loss = PolicyLoss.from_paper(objective)
    value, metrics = loss(np.full((1, 1), 1e-6), np.full((1, 1), -3.0), np.ones((1, 1)), np.ones((1, 1)))
    assert value == 0
    assert metrics["clip_fraction_high"] == 1


def test_an_unknown_paper_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown loss 'gspo-token'; known: clip_cov, .*gspo_token, "):
        PolicyLoss.from_paper("gspo-token")
    assert PolicyLoss.from_paper("sapo", temperature_positive=2.0).temperature_positive == 2.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "sapo", "clip_high": 0.28}, "clip_high=0.28 has no effect with objective='sapo'"),
        ({"objective": "sapo", "dual_clip": 3.0}, "dual_clip=3.0 has no effect with objective='sapo'"),
        ({"objective": "dppo_tv", "ratio": "sequence"}, "ratio='sequence' has no effect with"),
        ({"objective": "kl_cov", "clip_low": 0.1}, "clip_low=0.1 has no effect with objective='kl_cov'"),
        ({"objective": "kl_cov", "covariance_low": 2.0}, "covariance_low=2.0 has no effect with"),
        ({"temperature_positive": 2.0}, "temperature_positive=2.0 has no effect with objective='clip'"),
        ({"ratio_cap": 5.0}, "ratio_cap=5.0 has no effect with objective='clip'"),
        ({"covariance_fraction": 0.1}, "covariance_fraction=0.1 has no effect with objective='clip'"),
        ({"rollout_rule": "mask"}, "rollout_rule='mask' has no effect without rollout_cap"),
        ({"rollout_floor": 0.5}, "rollout_floor=0.5 has no effect without rollout_cap"),
        ({"rollout_floor": 2.0, "rollout_cap": 2.0}, "rollout_floor=2 is not below rollout_cap=2"),
        ({"objective": "clip_cov", "covariance_low": 6.0}, "covariance_low=6 is not below covariance_high=5"),
    ],
    ids=str,
)
def test_a_setting_without_effect_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PolicyLoss(**settings)


@every_case
def test_a_dump_is_read_back(name):
    loss = CASES[name]
    assert PolicyLoss.model_validate_json(loss.model_dump_json()) == loss
    assert credit.parse(credit.GRPO(loss=loss).model_dump(exclude_defaults=True)).loss == loss
