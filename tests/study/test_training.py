"""Runs side by side: what they share, what they do not, and what a failure does to them."""

from typing import Literal

import pytest
import torch
from estimator_study import journal, models, sampling, tasks, training
from estimator_study.work import work

import credit


class Failing(credit.Redistributing):
    """An estimator with a mistake."""

    name: Literal["failing"] = "failing"

    def score(self, rollouts):
        raise ArithmeticError("this estimator fails")


class NotFinite(credit.Redistributing):
    """An estimator that gives NaN."""

    name: Literal["not_finite"] = "not_finite"

    def score(self, rollouts):
        return float("nan") * rollouts.rewards[:, None] * rollouts.mask


class Constant(credit.DrGRPO):
    """The same advantage for all, since an untrained model earns nothing."""

    name: Literal["constant"] = "constant"

    def advantages(self, rollouts):
        return torch.ones_like(rollouts.rewards)


def never():
    return False


def records(folder, unit):
    return journal.read(folder / f"{unit.name}.jsonl")


def of(found, estimator):
    return [record for record in found if record.get("estimator") == estimator]


def numbers(record):
    return {name: value for name, value in record.items() if isinstance(value, float)}


def random_state(unit):
    shape = sampling.shape_of(unit)
    each = [models.initial(shape, torch.Generator().manual_seed(seed)) for seed in unit.seeds]
    return training.start(unit, models.stack(each))


def test_sampling_with_a_cache_gives_the_logits_of_a_whole_forward(make_unit):
    unit = make_unit(task="brackets", length=6, seeds=(0, 1))
    state = random_state(unit)
    batch = sampling.sample(unit, state.parameters, 3, 2, "test")
    with torch.no_grad():
        whole = models.logits(state.parameters, sampling.shape_of(unit), batch.inputs)
    torch.testing.assert_close(whole[:, :, -batch.ids.shape[-1] :], batch.logits, atol=1e-4, rtol=1e-4)


def test_completions_in_parts_are_those_of_the_whole(make_unit, monkeypatch):
    unit = make_unit(seeds=(0, 1))
    state = random_state(unit)
    whole = sampling.sample(unit, state.parameters, 5, 3, "test")
    monkeypatch.setattr(sampling, "AT_ONCE", 4 * len(unit.runs))
    parts = sampling.sample(unit, state.parameters, 5, 3, "test")
    assert parts.texts == whole.texts
    torch.testing.assert_close(parts.logits, whole.logits, atol=1e-4, rtol=1e-4)


def test_a_run_does_not_depend_on_those_beside_it(make_unit):
    together = random_state(make_unit(seeds=(3, 4)))
    alone = random_state(make_unit(seeds=(4,)))
    side_by_side, single = training.step(together), training.step(alone)
    for run, record in enumerate(single):
        assert numbers(side_by_side[2 + run]) == pytest.approx(numbers(record), rel=1e-3, abs=1e-6)
    for name, parameter in alone.parameters.items():
        torch.testing.assert_close(together.parameters[name][2:], parameter, atol=1e-5, rtol=1e-4)


def test_estimators_of_a_seed_begin_alike_and_sample_equally_much(make_unit):
    unit = make_unit(estimators={name: {"name": name} for name in ("grpo", "dapo", "dgpo")})
    found = training.step(random_state(unit))
    assert len({record["reward"] for record in found}) == 1
    assert len({record["sampled_tokens"] for record in found}) == 1


def test_a_fixed_horizon_is_the_longest_answer_unless_it_is_set(make_unit):
    thousand = {"aggregation": "fixed_horizon", "horizon": 1000}
    estimators = {"unset": {"name": "constant"}, "set": {"name": "constant", "loss": thousand}}
    unit = make_unit(estimators=estimators, settings={"updates": 1})
    unset, known = (record["gradient_norms"][0] for record in training.step(random_state(unit)))
    assert unset / known == pytest.approx(1000 / tasks.answer_tokens(unit.task, unit.length), rel=1e-3)


def test_a_failing_run_is_recorded_and_leaves_the_others_as_they_are(make_unit, tmp_path):
    healthy = {"grpo": {"name": "grpo"}}
    broken = {"broken": {"name": "failing"}, "nan": {"name": "not_finite"}}
    alone, beside = make_unit(estimators=healthy), make_unit(estimators=broken | healthy)
    for folder, unit in (("alone", alone), ("beside", beside)):
        work(unit, tmp_path / folder, "cpu", never, lambda _: None)
    found = records(tmp_path / "beside", beside)
    assert "ArithmeticError: this estimator fails" in of(found, "broken")[-1]["failed"]
    assert "nan" in of(found, "nan")[-1]["failed"]
    last, same = of(records(tmp_path / "alone", alone), "grpo")[-1], of(found, "grpo")[-1]
    assert last["evaluated"] == same["evaluated"] == alone.settings.steps
    assert numbers(last) == pytest.approx(numbers(same), rel=1e-3)
