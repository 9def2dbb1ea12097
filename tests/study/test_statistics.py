"""Differences, their intervals, their p values, and what is left of these after the correction."""

import numpy as np
import pytest
from estimator_study import comparing, page, runs, writing
from estimator_study.comparing import Difference, adjust_by_holm, bootstrap, compare, correct, find_p
from estimator_study.findings import Findings
from estimator_study.runs import MEASURES, TESTED
from scipy import stats

BASE = np.array([0.30, 0.35, 0.25, 0.40, 0.33])
NOISE = np.array([0.02, -0.03, 0.01, -0.01, 0.02])


def difference(samples):
    """Of logarithms; tested alone."""
    mean = float(np.mean([np.mean(sample) for sample in samples]))
    (found,) = correct([Difference(mean, *bootstrap(samples), 5, find_p(samples))])
    return found


def test_sentences_follow_the_corrected_p_values(make_runs):
    arms = {
        "grpo": BASE,
        "better": BASE + 0.1 + 0.1 * NOISE,
        "same": BASE + NOISE,
        "worse": BASE - 0.2 + NOISE,
    }
    found = Findings(make_runs(arms)).against("grpo")["accuracy"]
    said = writing.sentence("accuracy", found, "grpo")
    assert said.startswith(
        "Accuracy against grpo: higher: better (+0.100, p < 0.001); lower: worse (-0.198, p < 0.001); "
    )
    assert said.endswith("no difference found: same (+0.002, p = 1).")


def test_an_interval_that_excludes_zero_is_not_enough(make_runs):
    """One arm among many whose interval excludes zero, as some do by chance, is neither bold nor higher."""
    rng = np.random.default_rng(0)
    shift = 0.012 + np.array([0.012, -0.004, 0.008, -0.010, -0.006])
    arms = {"grpo": BASE, "lucky": BASE + shift}
    arms |= {f"other {n}": BASE + rng.normal(scale=0.02, size=5) for n in range(10)}
    findings = Findings(make_runs(arms))
    lucky = findings.against("grpo")["accuracy"]["lucky"]
    assert lucky.low > 0.0
    assert lucky.p < 0.05 < lucky.holm_p
    assert lucky.verdict == "no difference found"
    assert "**" not in writing.show("accuracy", lucky, findings)


def test_the_correction_is_over_all_differences_of_the_table(make_runs):
    findings = Findings(make_runs({"grpo": BASE, "one": BASE + 0.1 + NOISE, "other": BASE + NOISE}))
    found = findings.against("grpo")
    tested = [one for key in TESTED for one in found[key].values() if one]
    assert len(tested) == writing.count(found) == 2 * 5  # diversity has no values here
    assert [one.holm_p for one in tested] == pytest.approx(adjust_by_holm([one.p for one in tested]))
    assert f"The table has {len(tested)} differences from grpo" in writing.size(findings)
    assert "by Holm's method for all 10" in writing.size(findings)


def test_the_raw_variance_is_recorded_but_not_tested(make_runs):
    findings = Findings(make_runs({"grpo": BASE, "other": BASE + 0.1 + NOISE}))
    raw = findings.comparisons()["grpo"]["all tasks"]["gradient_norm_variance"]["other"]
    assert (raw["holm_p"], raw["verdict"]) == (None, "not tested")
    assert raw["pairs"] == 5
    heading = writing.table(findings)[0]
    assert "Δ variance of the gradient norm / its mean²" in heading
    assert "Δ variance of the gradient norm" not in heading


def test_holms_correction():
    """The example's adjusted values are those of p.adjust in R."""
    assert adjust_by_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_by_holm([0.5, 0.9]) == [1.0, 1.0]
    assert adjust_by_holm([]) == []


def test_the_p_value_of_one_task_is_that_of_a_t_test():
    sample = BASE - 0.25
    assert find_p([sample]) == pytest.approx(stats.ttest_1samp(sample, 0.0).pvalue)


def test_the_p_value_of_several_tasks_pools_them():
    samples = [BASE - 0.3, 3.0 * NOISE + 0.1]
    error = np.sqrt(sum(sample.var(ddof=1) / 5 for sample in samples)) / 2
    t = np.mean([sample.mean() for sample in samples]) / error
    assert find_p(samples) == pytest.approx(2 * stats.t.sf(t, df=8))


def test_differences_without_spread_have_the_limits_of_the_p_value():
    assert find_p([np.zeros(5)]) == 1.0
    assert find_p([np.full(5, 0.25)]) == 0.0


def test_p_values_of_no_effect_are_uniform():
    rng = np.random.default_rng(1)
    found = [find_p([rng.normal(size=8) for _ in range(3)]) for _ in range(2000)]
    assert 0.04 < np.mean(np.array(found) < 0.05) < 0.06


def test_the_papers_claim_is_held_against_the_interval():
    claimed = difference([np.log([0.55, 0.59, 0.62, 0.60])])
    unchanged = difference([np.log([0.95, 1.01, 1.02, 1.03])])
    said = writing.claim({"dapo": claimed, "dgpo 0.5": claimed, "dgpo 0.1": unchanged})
    assert said.endswith(
        "41 % less variance, which is inside the interval of dgpo 0.5; below the interval of dgpo 0.1."
    )


def test_failed_runs_are_shown_and_their_pairs_are_left_out(make_runs):
    values = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    findings = Findings(make_runs({"grpo": values, "other": values}, failed={("other", 1)}))
    assert findings.against("grpo")["accuracy"]["other"].pairs == 5
    assert writing.table(findings)[2][1] == "6, 1 FAILED"
    assert "1 failed" in writing.size(findings)
    assert [run["failed"] for run in findings.numbers()].count("it broke") == 1
    assert "delete its .jsonl file" in page.html(findings, [], {})


def test_pairs_are_by_seed(make_runs):
    base = np.array([0.1, 0.5, 0.9, 0.3, 0.2])
    found = compare(make_runs({"grpo": base, "other": base + 0.1}), "other", "grpo", "accuracy")
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))


def test_few_pairs_give_no_difference(make_runs):
    found = make_runs({"grpo": [0.1, 0.2, 0.3, 0.4], "other": [0.2, 0.3, 0.4, 0.5]})
    assert compare(found, "other", "grpo", "accuracy") is None
    assert "No estimator has the 5 pairs" in writing.size(Findings(found))


def test_ratios_are_shown_in_percent():
    assert difference([np.log([2.0, 2.0, 2.0])]).show(by_ratio=True) == "+100 % [+100 %, +100 %]"


@pytest.mark.parametrize("sizes", [(5,), (8, 8, 8)])
def test_intervals_cover_the_truth_about_as_often_as_they_say(sizes, monkeypatch):
    monkeypatch.setattr(comparing, "RESAMPLES", 1000)
    rng = np.random.default_rng(1)
    found = [bootstrap([1.0 + rng.normal(size=size) for size in sizes]) for _ in range(400)]
    assert 0.91 < np.mean([low <= 1.0 <= high for low, high in found]) < 0.99


def test_the_picture_is_blue_where_the_correction_leaves_a_difference(make_runs):
    from estimator_study import plots

    found = Findings(make_runs({"grpo": BASE, "better": BASE + 0.1 + 0.1 * NOISE, "same": BASE + NOISE}))
    figure = plots.differences(found.against("grpo"))
    titles = [axis.get_title() for axis in figure.axes if axis.get_visible()]
    assert titles[:1] == ["accuracy"]
    assert len(titles) == len(TESTED)
    assert MEASURES["gradient_norm_variance"].label + ", %" not in titles
    colours = [line.get_color() for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert colours == ["#1f6fb4", "#8a8a8a"]
    plots.plt.close(figure)


def test_a_run_that_did_not_end_has_no_numbers(make_runs):
    (run,) = make_runs({"grpo": [0.5]})
    run.finished = False
    assert runs.measured(run, "accuracy") is None
