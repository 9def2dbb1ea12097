"""The page in a real browser: its numbers are the library's, and what it shows stays text."""

import json
import re
from math import log2

import numpy as np
import pytest
from browsing import metrics, order, put, settle, wait, weights
from lens_samples import FIELDS, N, T, rollouts, write

import credit
from credit import lens

pytestmark = pytest.mark.filterwarnings("ignore:effective_fraction is missed")


SETTINGS = {
    "the paper's": {"tau": 0.5},
    "colder": {"tau": 0.05},
    "coldest": {"tau": 1e-3},
    "deviation alone": {"tau": 0.1, "kappa": 0},
    "half": {"tau": 0.1, "kappa": 0.5},
    "squared": {"tau": 0.02, "kappa": 2},
    "target": {"effective_fraction": 0.5},
    "low target": {"effective_fraction": 0.1, "kappa": 0},
    "high target": {"effective_fraction": 0.95, "kappa": 2},
}


def apply(driver, settings):
    put(driver, "#kappa input[type=number]", settings.get("kappa", 1))
    for setting, slider in (("tau", "tau"), ("effective_fraction", "fraction")):
        if setting in settings:
            put(driver, f"#{slider} input[type=number]", settings[setting])
    settle(driver)


def state(driver):
    return driver.find_element("id", "state").get_property("textContent")


def agrees(driver, result):
    """Weights and metrics within 1e-6 of a weight, or relatively where it is large."""
    np.testing.assert_allclose(weights(driver).reshape(N, T), result.weights, rtol=1e-6, atol=1e-6)
    for name, value in metrics(driver).items():
        np.testing.assert_allclose(value, result.metrics[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_the_recorded_weights_are_shown_as_they_are(opened, tmp_path):
    given = rollouts()
    estimator = credit.DGPO(tau=0.05)
    driver = opened(write(tmp_path / "samples.jsonl", given, estimator, step=3, prompts=["Add."] * N))
    np.testing.assert_allclose(weights(driver).reshape(N, T), estimator(given).weights, rtol=2e-7)  # float32
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert state(driver) == "as recorded"
    assert "dgpo(tau=0.05, kappa=1)" in driver.find_element("id", "source").text
    assert driver.find_element("id", "which").text == "step 3 · group 0 · row 0"


def test_the_sliders_give_the_librarys_numbers(opened, tmp_path):
    given = rollouts()
    driver = opened(write(tmp_path / "samples.jsonl", given, credit.GRPO()))
    for settings in SETTINGS.values():
        apply(driver, settings)
        agrees(driver, credit.DGPO(**settings)(given))


@pytest.mark.parametrize(
    "rest", [{"negative": "inverse"}, {"negative": "uniform"}, {"within": "turn"}], ids=str
)
def test_the_estimators_other_rules_are_kept(opened, tmp_path, rest):
    given = rollouts(turns=np.cumsum(np.random.default_rng(1).random((N, T)) < 0.1, axis=1))
    driver = opened(write(tmp_path / "samples.jsonl", given, credit.DGPO(**rest)))
    for settings in ({"tau": 0.05}, {"effective_fraction": 0.4}):
        apply(driver, settings)
        agrees(driver, credit.DGPO(**settings, **rest)(given))


def test_scores_that_are_noise_are_left_alone_by_a_target(opened, tmp_path):
    small = 1e-5 * np.random.default_rng(0).random((N, T))
    given = rollouts(deviation=small)
    driver = opened(write(tmp_path / "samples.jsonl", given, credit.DGPO()))
    apply(driver, {"effective_fraction": 0.4})
    assert set(weights(driver).reshape(N, T)[given.mask]) == {1.0}
    agrees(driver, credit.DGPO(effective_fraction=0.4)(given))


def test_an_estimators_own_score_is_redistributed(opened, tmp_path):
    class Surprising(credit.Redistributing):
        name: str = "surprising"

        def score(self, rollouts):
            return -rollouts.log_probs

    given = rollouts()
    driver = opened(write(tmp_path / "samples.jsonl", given, Surprising()))
    assert not driver.find_element("css selector", "#kappa input").is_enabled()
    put(driver, "#tau input[type=number]", 0.7)
    settle(driver)
    agrees(driver, Surprising(tau=0.7)(given))


def test_an_invalid_row_weighs_nothing(opened, tmp_path):
    given = rollouts(rewards=np.array([1.0, 0, np.nan, 1, 0, 0]))
    driver = opened(write(tmp_path / "samples.jsonl", given, credit.DGPO()))
    apply(driver, {"tau": 0.05})
    agrees(driver, credit.DGPO(tau=0.05)(given))
    assert not weights(driver).reshape(N, T)[2].any()
    assert "Left out: 1 invalid." in driver.find_element("id", "verdict").text
    badges = driver.find_elements("css selector", "#rows .badge")
    assert [
        badge.find_element("xpath", "ancestor::*[@role='option']").get_attribute("data-row")
        for badge in badges
    ] == ["2"]
    driver.execute_script("lens.choose(2)")
    assert driver.find_element("id", "badge").is_displayed()
    assert {each for _, _, each in colours(driver)} <= {"missing", "outside"}


def test_a_schedule_stands_where_its_progress_was(opened, tmp_path):
    given = rollouts(progress=np.array(0.25))
    driver = opened(
        write(
            tmp_path / "samples.jsonl", given, credit.DGPO(tau={"start": 1.0, "end": 0.2, "kind": "linear"})
        )
    )
    assert driver.find_element("css selector", "#tau input[type=number]").get_property("value") == "0.8"


def test_an_infinite_tau_is_shown_and_weighs_all_tokens_alike(opened, tmp_path):
    given = rollouts()
    driver = opened(write(tmp_path / "samples.jsonl", given, credit.DGPO(tau=float("inf"))))
    put(driver, "#kappa input[type=number]", 2)
    settle(driver)
    agrees(driver, credit.DGPO(tau=float("inf"), kappa=2)(given))
    assert state(driver) == "what if τ = ∞, κ = 2"
    assert driver.find_element("css selector", "#tau input[type=number]").get_property("value") == ""


def test_a_run_without_turns_has_none_beside_one_that_has(opened, tmp_path):
    turns = np.tile(np.arange(T) // 20 + 1, (N, 1))
    path = write(tmp_path / "samples.jsonl", rollouts(turns=turns), credit.GRPO())
    driver = opened(write(path, rollouts(), credit.GRPO()))
    driver.find_element("id", "view-batch").click()
    wait(driver, "return !lens.batch.busy")
    assert driver.execute_script("return lens.batch.result.turns.names") == ["1", "2"]
    numbers = driver.execute_script(
        "return [0, 41].map((row) => lens.model.numbersOf(row * arguments[0]))", N
    )
    assert ["turn", "1"] in numbers[0]
    assert "turn" not in dict(numbers[1])


def colours(driver):
    """Specified and computed background of the tokens in the reading pane, as shares of the full colour."""
    found = driver.execute_script(
        "return [...document.querySelectorAll('#text .token')].map((e) => [e.style.backgroundColor, "
        "getComputedStyle(e).backgroundColor, ['missing', 'outside'].find((kind) => e.classList.contains(kind))])"
    )

    def share(text):
        number = re.search(r"([\d.]+(?:e-\d+)?)\)$", text)
        alpha = float(number.group(1)) if "/" in text or text.startswith("rgba") else float(text != "")
        return -alpha if "--less" in text else alpha

    return [(share(specified), abs(share(computed)), kind) for specified, computed, kind in found]


def test_a_token_has_the_colour_of_its_weight(opened, tmp_path):
    given = rollouts()
    driver = opened(write(tmp_path / "samples.jsonl", given, credit.DGPO()))
    driver.execute_script("lens.choose(1)")
    for tau in (0.3, 0.03):
        apply(driver, {"tau": tau})
        expected = credit.DGPO(tau=tau)(given).weights[1]
        for (specified, computed, kind), weight, chosen in zip(
            colours(driver), expected, given.mask[1], strict=True
        ):
            x = max(-1.0, min(1.0, log2(weight) / log2(4))) if chosen else 0.0
            assert specified == pytest.approx(x, abs=6e-5)
            assert computed == pytest.approx(abs(x), abs=1 / 255)
            assert kind == (None if chosen else "outside")


def test_tokens_are_coloured_by_any_of_their_numbers(opened, tmp_path):
    given = rollouts()
    estimator = credit.DGPO(tau=0.05)
    driver = opened(write(tmp_path / "samples.jsonl", given, estimator))
    result, mask = estimator(given), given.mask
    values = {
        "A": result.advantages,
        "d": given.deviation,
        "h": given.normalized_entropy,
        "log-ratio": given.log_probs - given.reference_log_probs,
    }
    for name, each in values.items():
        put(driver, "#color-by", name)
        shares = np.clip(each[0] / np.quantile(np.abs(each[mask]), 0.99), -1, 1) * mask[0]
        np.testing.assert_allclose(
            [specified for specified, *_ in colours(driver)], shares, atol=6e-5, err_msg=name
        )
    assert not driver.find_element("id", "reach").is_displayed()


def test_missing_numbers_are_shown_as_missing_and_counted(opened, tmp_path):
    given = rollouts()
    given.deviation[1, 0] = np.nan
    path = write(tmp_path / "samples.jsonl", given, credit.DGPO(tau=0.05))
    driver = opened(path)
    counted = [row for row in range(N) if row != 1]
    spread = credit.DGPO(tau=0.05)(given).weights[counted][given.mask[counted]].std()
    for settings in ({}, {"tau": 0.05}):  # as recorded, and computed anew
        apply(driver, settings)
        assert "Left out: 1 with missing weights." in driver.find_element("id", "verdict").text
        assert metrics(driver)["weight_std"] == pytest.approx(spread, rel=1e-6)
        driver.execute_script("lens.choose(1)")
        kinds = [kind for _, _, kind in colours(driver)]
        assert kinds == ["missing" if chosen else "outside" for chosen in given.mask[1]]
        numbers = driver.execute_script("return lens.model.numbersOf(arguments[0])", T)
        assert dict(numbers)["weight w"] == dict(numbers)["deviation d"] == "missing"
        assert driver.find_element("css selector", "#of-response tr:last-child td:nth-child(3)").text == "–"
    driver.find_element("id", "view-batch").click()
    wait(driver, "return !lens.batch.busy")
    line = driver.find_element("css selector", "#batch .coverage").text
    assert line.startswith("5 of 6 completions are counted")
    assert "Left out: 1 with missing weights." in line


def test_reset_brings_back_what_was_recorded(opened, tmp_path):
    given = rollouts()
    driver = opened(write(tmp_path / "samples.jsonl", given, credit.DGPO(tau=0.05)))
    apply(driver, {"tau": 1.0})
    assert state(driver) == "what if τ = 1, κ = 1"
    driver.find_element("css selector", "#what-if-box summary").click()
    driver.find_element("id", "reset").click()
    settle(driver)
    recorded = credit.DGPO(tau=0.05)(given).weights
    np.testing.assert_allclose(weights(driver).reshape(N, T), recorded, rtol=2e-7)
    assert state(driver) == "as recorded"


@pytest.mark.parametrize("wrong", ["", "-1", "0"])
def test_an_input_that_is_out_of_range_keeps_the_number_in_use(opened, tmp_path, wrong):
    given = rollouts()
    driver = opened(write(tmp_path / "samples.jsonl", given, credit.DGPO()))
    apply(driver, {"tau": 0.1})
    put(driver, "#tau input[type=number]", wrong)
    put(driver, "#kappa input[type=number]", 2)
    settle(driver)
    assert state(driver) == "what if τ = 0.1, κ = 2"
    agrees(driver, credit.DGPO(tau=0.1, kappa=2)(given))
    exact = driver.find_element("css selector", "#tau input[type=number]")
    driver.execute_script("arguments[0].dispatchEvent(new Event('change'))", exact)  # as it is left
    assert exact.get_property("value") == "0.1"


def test_without_statistics_nothing_can_be_recomputed(opened, tmp_path):
    bare = rollouts()._replace(**dict.fromkeys(FIELDS))
    driver = opened(write(tmp_path / "samples.jsonl", bare, credit.GRPO()))
    assert not driver.find_element("css selector", "#tau input").is_enabled()
    assert "no deviation" in state(driver)
    assert driver.find_element("id", "verdict").text == "The weights hardly move: GRPO in all but name."


@pytest.mark.parametrize(
    ("estimator", "deviation", "expected"),
    [
        (credit.DGPO(tau=50.0), 0.5, "GRPO in all but name. A smaller τ or an effective fraction makes"),
        (credit.DGPO(tau=50.0), 0.0, "since the policy is still its reference: every deviation is 0."),
        (credit.GTPO(), 0.0, "but the tokens of a response have different advantages: color by these."),
        (credit.GRPO(), 0.0, "The weights hardly move: GRPO in all but name."),
    ],
    ids=["flat", "still", "direct", "grpo"],
)
def test_it_says_why_weights_hardly_move(opened, tmp_path, estimator, deviation, expected):
    given = rollouts(deviation=np.full((N, T), deviation))
    driver = opened(write(tmp_path / "samples.jsonl", given, estimator))
    assert expected in driver.find_element("id", "verdict").text


def test_a_deviation_without_entropy_is_shown_and_weighed_without_it(opened, tmp_path):
    given = rollouts()
    bare = given._replace(normalized_entropy=None)
    driver = opened(write(tmp_path / "samples.jsonl", bare, credit.GRPO()))
    numbers = dict(driver.execute_script("return lens.model.numbersOf(0)"))
    assert (numbers["entropy h"], numbers["score s"]) == ("–", "–")
    driver.execute_script("location.hash = 'row=1&tau=0.05&kappa=1'")  # of a page that has entropies
    wait(driver, "return lens.model.settings")
    settle(driver)
    assert state(driver) == "what if τ = 0.05, κ = 0"
    expected = credit.DGPO(tau=0.05, kappa=0)(bare).weights
    np.testing.assert_allclose(weights(driver), expected.ravel(), rtol=1e-6, atol=1e-9)


def test_a_tokens_numbers_appear_with_pointer_and_keys(opened, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    given = rollouts()
    estimator = credit.DGPO(tau=0.05)
    driver = opened(write(tmp_path / "samples.jsonl", given, estimator))
    result = estimator(given)
    tip = driver.find_element("id", "tooltip")
    assert not tip.is_displayed()
    ActionChains(driver).move_to_element(driver.find_elements("css selector", "#text .token")[0]).perform()
    text = tip.text.replace("\n", " ")
    for value in (
        given.log_probs[0, 0],
        given.reference_log_probs[0, 0],
        given.deviation[0, 0],
        given.normalized_entropy[0, 0],
        given.deviation[0, 0] * given.normalized_entropy[0, 0],
        result.weights[0, 0],
        result.advantages[0, 0],
    ):
        found = [float(word) for word in re.findall(r"-?\d[\d.]*(?:e-?\d+)?", text)]
        assert any(number == pytest.approx(value, rel=1e-5) for number in found), (value, text)
    pane = driver.find_element("id", "text")
    pane.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert '" w1"' in tip.text or '" w2"' in tip.text
    pane.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()


HOSTILE = [
    "</script><script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 1'>",
    "<!--<script>",
    "@about@ @script@",
    "]]>&lt;b&gt;",
    "\u2028\u2029\x00\x1b[31m",
    "javascript:window.pwned=1",
    "{{constructor.constructor('window.pwned = 1')()}}",
    "\u202egnihtyreve sesrever",
    "'\"`\\",
]


def test_hostile_completions_stay_text(opened, tmp_path):
    given = rollouts()
    tokens = [(HOSTILE * 4)[:T] for _ in range(N)]
    path = write(
        tmp_path / "<img src=x onerror=pwned=1>.jsonl", given, credit.DGPO(), tokens, prompts=HOSTILE[:N]
    )
    driver = opened(path)
    for row in range(N):
        driver.execute_script("lens.choose(arguments[0])", row)
        texts = driver.execute_script(
            "return [...document.querySelectorAll('#text .token')].map((e) => e.textContent)"
        )
        assert texts == tokens[row]
        assert driver.execute_script("return document.getElementById('prompt').textContent") == HOSTILE[row]
    assert driver.execute_script("return window.pwned") is None
    assert driver.execute_script("return document.querySelectorAll('img, b').length") == 0
    assert driver.execute_script("return document.scripts.length") == 2  # the JSON and the page's own
    assert path.name in driver.title


def test_the_policy_stops_a_script_that_got_in_all_the_same(browser, tmp_path):
    given = rollouts()
    html = lens.page(lens.read(write(tmp_path / "samples.jsonl", given, credit.GRPO())), "samples")
    path = tmp_path / "injected.html"
    path.write_text(
        html.replace("<main ", "<script>window.pwned = 1</script><main onclick='window.pwned = 1' ")
    )
    browser.get(path.as_uri())
    browser.execute_script("document.querySelector('main').click()")
    assert browser.execute_script("return window.pwned") is None
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))


def test_long_files_keep_few_elements(opened, tmp_path):
    path = tmp_path / "samples.jsonl"
    for step in range(40):
        write(path, rollouts(step), credit.DGPO(tau=0.05), step=step)
    driver = opened(path)
    assert len(order(driver)) == 40 * N
    for place in (0, 117, 239):
        driver.execute_script("document.getElementById('list').scrollTop = 66 * arguments[0]", place)
        wait(driver, "return document.querySelector(`#list [aria-posinset='${arguments[0] + 1}']`)", place)
        assert driver.execute_script("return document.querySelectorAll('#rows > div').length") < 25
    assert driver.execute_script("return lens.model.groupName(239)") == "step 39 · group 3"


def test_a_notebook_shows_it_in_a_frame_of_its_own(browser, tmp_path):
    path = write(tmp_path / "samples.jsonl", rollouts(), credit.DGPO())
    shown = lens.show(path, height=500)._repr_html_()
    assert 'sandbox="allow-scripts"' in shown
    outer = tmp_path / "notebook.html"
    outer.write_text(f"<!doctype html><meta charset=utf-8>{shown}", encoding="utf-8")
    browser.get(outer.as_uri())
    browser.switch_to.frame(0)
    wait(browser, "return document.documentElement.dataset.ready")
    assert len(order(browser)) == N
    assert browser.execute_script("return window.origin") == "null"
    assert not browser.find_element("id", "link").is_displayed()


def test_a_file_without_completions_is_refused(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text("\n")
    with pytest.raises(ValueError, match="samples.jsonl holds no completions"):
        lens.show(path)


def test_what_is_embedded_cannot_end_its_element():
    from credit.lens.page import embed

    text = embed({"<!--": "</script>&\u2028"})
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == {"<!--": "</script>&\u2028"}
