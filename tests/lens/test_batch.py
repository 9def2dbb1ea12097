"""The batch view in a real browser: its numbers are numpy's, and token texts stay text."""

import json

import numpy as np
import pytest
from batch_records import (
    COLUMNS,
    ESTIMATORS,
    HOSTILE,
    QUANTILES,
    STEPS,
    T,
    counted,
    gather,
    record_batch,
    record_batches,
    sum_by_text,
    with_tokens,
)
from browsing import put, settle, wait

import credit
from credit import lens
from credit.estimators.drift import align_drift


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return record_batches(tmp_path_factory.mktemp("batch") / "samples.jsonl")


@pytest.fixture
def shown(opened, samples):
    driver = opened(samples)
    driver.execute_script("lens.view('batch')")
    wait(driver, "return lens.batch.result && !lens.batch.busy")
    return driver


def measured(driver):
    """What the view computed; unknown numbers are None."""
    wait(driver, "return !lens.batch.busy")
    script = "return JSON.stringify(lens.batch.result, (_, v) => ArrayBuffer.isView(v) ? Array.from(v) : v)"
    return json.loads(driver.execute_script(script))


def test_it_says_what_it_counts_and_what_it_leaves_out(shown, samples):
    text = shown.find_element("css selector", ".coverage").text
    tokens = sum(row.chosen.sum() for row in counted(samples))
    assert text.startswith(f"34 of 48 completions are counted, with {tokens} tokens of the policy.")
    assert "Left out: 6 invalid, 2 with missing weights, 6 without tokens of the policy." in text
    assert "6 of d, 6 of h, 6 of A, 6 of log p, 6 of log q." in text


def test_distributions(shown, samples):
    result = measured(shown)
    assert [one["name"] for one in result["series"]] == ["dgpo(tau=0.05, kappa=1)", "grpo"]
    for name in COLUMNS:
        column = result["columns"][name]
        for estimator, one in zip(ESTIMATORS, column["series"], strict=True):
            values = gather(counted(samples, estimator), name)
            assert one["count"] == len(values)
            assert one["zeros"] == (values == 0).sum()
            assert one["mean"] == pytest.approx(values.mean(), rel=1e-12)
            np.testing.assert_allclose(one["quantiles"], np.quantile(values, QUANTILES), rtol=1e-12)
            drawn = values[values > 0] if column["axis"]["kind"] == "log" else values
            edges = np.array(column["edges"])
            bars, _ = np.histogram(np.clip(drawn, edges[0], edges[-1]), edges)
            np.testing.assert_array_equal(one["bars"], bars)


def test_courses_over_the_steps(shown, samples):
    result = measured(shown)
    for estimator, *columns in zip(
        ESTIMATORS, *(result["columns"][n]["series"] for n in COLUMNS), strict=True
    ):
        rows = counted(samples, estimator)
        for name, column in zip(COLUMNS, columns, strict=True):
            assert [point["step"] for point in column["course"]] == list(STEPS)
            for point in column["course"]:
                here = [row for row in rows if row.line.step == point["step"]]
                if name == "weights":
                    values = np.array([row.weights.std() for row in here])
                    expected = [values.mean(), *np.quantile(values, [0.05, 0.95])]
                else:
                    values = np.abs(gather(here, name))
                    expected = np.quantile(values, [0.5, 0.05, 0.95])
                assert point["count"] == len(values)
                found = [point["line"], point["low"], point["high"]]
                np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    titles = shown.execute_script(
        "return [...document.querySelectorAll('circle title')].map((e) => e.textContent)"
    )
    assert len(titles) == len(COLUMNS) * len(ESTIMATORS) * len(STEPS)
    assert titles[0].startswith("step 10: median ")


def test_the_share_of_credit_that_the_top_tokens_hold(shown, samples):
    for estimator, found in zip(ESTIMATORS, measured(shown)["concentration"], strict=True):
        rows = [np.sort(row.weights)[::-1] for row in counted(samples, estimator)]

        def share(w, size):
            return np.interp(size, np.arange(len(w) + 1), np.append(0, w.cumsum())) / w.sum()

        assert found["responses"] == len(rows)
        for k, y in enumerate(found["curve"]):
            assert y == pytest.approx(np.mean([share(w, k / 100 * len(w)) for w in rows]), rel=1e-9)
        for top in found["tops"]:
            sizes = [min(top["tokens"], len(w)) if "tokens" in top else top["share"] * len(w) for w in rows]
            credit_held = np.mean([share(w, size) for w, size in zip(rows, sizes, strict=True)])
            assert top["credit"] == pytest.approx(credit_held, rel=1e-9)
            even = np.mean([size / len(w) for w, size in zip(rows, sizes, strict=True)])
            assert top["even"] == pytest.approx(even, rel=1e-9)
            if estimator.name == "grpo":
                assert top["credit"] == pytest.approx(top["even"], rel=1e-9)


def test_where_in_the_response_the_credit_goes(shown, samples):
    result = measured(shown)
    every = [counted(samples, estimator) for estimator in ESTIMATORS]
    turns = sorted({t for rows in every for r in rows for t in np.array(r.line.turns)[r.chosen].tolist()})
    assert result["turns"]["names"] == [str(turn) for turn in turns]
    for rows, positions, by_turn in zip(every, result["positions"], result["turns"]["profiles"], strict=True):
        w = gather(rows, "weights")
        part = np.concatenate([(np.arange(T) * 20 // T)[row.chosen] for row in rows])
        turn = np.concatenate([np.array(row.line.turns)[row.chosen] for row in rows])
        for found, index, kinds in ((positions, part, range(20)), (by_turn, turn, turns)):
            for k, mean, count in zip(kinds, found["means"], found["counts"], strict=True):
                assert count == (index == k).sum()
                assert (mean is None) == (count == 0)
                if count:
                    assert mean == pytest.approx(w[index == k].mean(), rel=1e-9)


def test_the_metrics_are_the_librarys_for_each_estimator(shown, samples):
    for estimator, found in zip(ESTIMATORS, measured(shown)["summaries"], strict=True):
        rows = counted(samples, estimator)
        w = np.concatenate([row.weights for row in rows])
        assert found["responses"] == len(rows)
        assert found["weight_std"] == pytest.approx(w.std(), rel=1e-6)
        assert (found["weight_min"], found["weight_max"]) == (w.min(), w.max())
        d = gather(rows, "deviation")
        assert (found["deviation"]["mean"], found["deviation"]["max"]) == (pytest.approx(d.mean()), d.max())
        moved = [np.clip(row.log_probs - row.reference_log_probs, -20, 20).sum() for row in rows]
        pairs = np.array([(row.line.advantage, drift) for row, drift in zip(rows, moved, strict=True)], float)
        known = pairs[~np.isnan(pairs).any(axis=1)]
        expected = align_drift(known[:, 0], known[:, 1], np.ones(len(known), bool))
        assert found["drift"]["responses"] == len(known) < len(rows)
        assert found["drift"]["alignment"] == pytest.approx(float(expected), rel=1e-6)
    table = shown.find_element("css selector", "#batch .summary").text
    assert "drift alignment" in table
    assert "grpo" in table


def body(driver):
    """The cells of the table of texts, row by row, with the text's own from its tooltip."""
    return driver.execute_script(
        "return [...document.querySelectorAll('.texts tbody tr')].map((line) => [...line.children].map("
        "(cell, i) => i ? cell.textContent : cell.firstChild.title))"
    )


def test_the_texts_that_get_the_credit(shown, samples):
    for i, estimator in enumerate(ESTIMATORS):
        put(shown, ".above select", i)
        check_texts(shown, measured(shown)["texts"][i], sum_by_text(counted(samples, estimator)))


def check_texts(shown, result, expected):
    total = sum(one["credit"] for one in expected.values())
    vocabulary = shown.execute_script("return lens.model.samples.vocabulary")
    assert result["total"] == pytest.approx(total)
    for i, text in enumerate(vocabulary):
        assert result["count"][i] == expected[text]["count"]
        assert result["credit"][i] == pytest.approx(expected[text]["credit"])
        for column in result["sums"]:
            values = np.array(expected[text][column["name"]])
            assert column["known"][i] == (~np.isnan(values)).sum()
            assert column["sum"][i] == pytest.approx(np.nansum(values))
    lines = body(shown)
    order = sorted((t for t in vocabulary if expected[t]["count"] >= 3), key=lambda t: -expected[t]["credit"])
    texts = [json.loads(line[0].removesuffix(": search for it")) for line in lines]
    assert texts == order
    first = expected[order[0]]
    assert float(lines[0][3].removesuffix(" %")) == pytest.approx(100 * first["credit"] / total, rel=5e-3)
    assert float(lines[0][4]) == pytest.approx(np.nanmean(first["advantages"]), rel=5e-3)


def test_the_table_of_texts_is_sorted_by_a_click_and_keeps_to_a_least_count(shown):
    heads = shown.find_elements("css selector", ".texts th[scope=col]")
    assert [head.text.removesuffix(" ↓") for head in heads] == [
        *("text", "count", "mean w", "share of credit", "mean A", "mean d", "mean h")
    ]
    assert [head.get_attribute("aria-sort") for head in heads].index("descending") == 3
    for column, head in list(enumerate(heads))[1:]:
        for direction in ("descending", "ascending"):
            head.find_element("tag name", "button").click()
            assert head.get_attribute("aria-sort") == direction
            values = [float(line[column].removesuffix(" %")) for line in body(shown)]
            assert values == sorted(values, reverse=direction == "descending")
    put(shown, ".least input", 10)
    assert min(int(line[1]) for line in body(shown)) >= 10
    put(shown, ".least input", 10_000)
    assert body(shown) == []


def test_token_texts_stay_text_and_are_searched_for_by_a_click(shown):
    texts = [line[0] for line in body(shown)]
    assert json.dumps(HOSTILE[0]) + ": search for it" in texts
    assert json.dumps("\n") in texts  # which a search field cannot hold
    assert shown.execute_script("return document.querySelectorAll('img').length") == 0
    assert shown.execute_script("return window.pwned") is None
    shown.execute_script(
        "[...document.querySelectorAll('.texts button.text')].find((b) => b.title.includes('img')).click()"
    )
    assert shown.execute_script("return document.getElementById('search').value") == HOSTILE[0]


def test_it_follows_filters_and_settings(shown, samples):
    shown.execute_script("return lens.batch.draw(lens.model.order.filter((row) => row < 24))")
    assert len(measured(shown)["series"]) == 1
    put(shown, "#kappa input[type=number]", 0)
    put(shown, "#tau input[type=number]", 0.2)
    settle(shown)
    result = measured(shown)
    # All weights are computed anew, so only those of which the deviation is missing are missing.
    known = [row for row in with_tokens(samples) if not np.isnan(row.deviation).any()]
    exponents = [np.exp(row.deviation / 0.2) for row in known]
    w = [len(e) * e / e.sum() for e in exponents]
    assert result["missing"] == 6
    assert result["tokens"] == sum(map(len, w))
    spread = sum(one["count"] * one["mean"] for one in result["columns"]["weights"]["series"])
    assert spread == pytest.approx(result["tokens"], rel=1e-9)
    advantages = np.concatenate([row.line.advantage * each for row, each in zip(known, w, strict=True)])
    weighted = sum(one["count"] * one["mean"] for one in result["columns"]["advantages"]["series"])
    assert weighted == pytest.approx(advantages.sum(), rel=1e-6, abs=1e-6)
    most = max(one["most"] for one in result["columns"]["weights"]["series"])
    assert most == pytest.approx(max(map(np.max, w)), rel=1e-9)


def test_nothing_to_count_and_little_to_show_are_shown_all_the_same(opened, tmp_path):
    path = tmp_path / "few.jsonl"
    given = credit.Rollouts(np.array([1.0, np.nan]), np.array([0, 0]), np.array([[True], [True]]))
    estimator = credit.GRPO()
    lens.record(path, tokens=[["a"], ["b"]], rollouts=given, result=estimator(given), estimator=estimator)
    driver = opened(path)
    for rows, counts in (([0, 1], 1), ([1], 0), ([], 0)):
        driver.execute_script("lens.view('batch'); return lens.batch.draw(arguments[0])", rows)
        result = measured(driver)
        assert (result["shown"], result["counted"], result["steps"]) == (len(rows), counts, 0)
        assert bool(driver.find_elements("css selector", "#batch .part")) == bool(counts)
        if rows == [0, 1]:
            text = driver.find_element("id", "batch").text
            assert "1 of 2 completions is counted, with 1 token of the policy. Left out: 1 invalid." in text
            assert "1 token in each part that has any" in text
    assert driver.find_element("id", "source").text == "few.jsonl · 2 completions in 1 group · grpo"


def test_series_beyond_the_sixth_are_named_but_not_drawn(opened, tmp_path):
    path = tmp_path / "many.jsonl"
    for i in range(8):
        record_batch(path, i, credit.DGPO(tau=0.1 + i), 1)
    driver = opened(path)
    driver.execute_script("lens.view('batch')")
    assert len(measured(driver)["series"]) == 6
    assert "the first 6 of 8" in driver.find_element("css selector", ".series").text
    assert driver.find_element("id", "verdict").text.endswith(" And 5 more; filters choose others.")
