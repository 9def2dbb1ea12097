"""Two completions side by side, token by token, and links that lead to them."""

import numpy as np
import pytest
from browsing import put, settle, wait
from lens_samples import N, T, rollouts, write

import credit
from credit import lens

PROMPTS = [f"prompt {row // 3}" for row in range(N)]


@pytest.fixture
def two_steps(tmp_path):
    """Two estimators on the same completions at step 1; at step 2 their third tokens are others, and one more follows."""
    path = tmp_path / "samples.jsonl"
    pieces = [[f" {row}.{t}" for t in range(T)] for row in range(N)]
    for estimator in (credit.DGPO(tau=0.05), credit.GRPO()):
        write(path, rollouts(), estimator, pieces, step=1, prompts=PROMPTS)
    later = [[*row[:2], " other", " more", *row[3:-1]] for row in pieces]
    return write(path, rollouts(1), credit.GRPO(), later, step=2, prompts=PROMPTS)


def pairs(driver):
    """Texts of the upper and the lower tokens; those of a side that has none are empty."""
    return driver.execute_script(
        "return [...document.querySelectorAll('#text .pair')].map((p) => [...p.children].map((e) => e.textContent))"
    )


def choices(driver, selector):
    return driver.execute_script(
        "return [...document.querySelector(arguments[0]).options].map((o) => o.textContent)", selector
    )


def compare_with(driver, text):
    put(
        driver,
        "#versus",
        driver.execute_script(
            "return [...document.querySelectorAll('#versus option')].find((o) => o.textContent === arguments[0]).value",
            text,
        ),
    )


def test_two_estimators_stand_above_each_other(opened, two_steps):
    driver = opened(two_steps)
    assert choices(driver, "#versus") == [
        "nothing",
        "another of its group",
        "step 1 · grpo",
        "step 2 · grpo",
    ]
    compare_with(driver, "step 1 · grpo")
    texts = [f" 0.{t}" for t in range(T)]
    assert pairs(driver) == [[text, text] for text in texts]
    assert not driver.find_elements("css selector", ".pair.differs")
    places = driver.execute_script(
        "return [...document.querySelectorAll('#text .other')].map((e) => Number(e.dataset.place))"
    )
    assert places == list(range(N * T, N * T + T))
    lines = [row.text for row in driver.find_elements("css selector", "#of-response tr")]
    assert lines[1].startswith("upper 1 +1.15 5.46 ")
    assert lines[2] == "lower: step 1 · grpo · group 0 · row 0 1 +1.15 0 1 1 … 1 40"


def test_the_comparison_follows_to_the_next_completion(opened, two_steps):
    driver = opened(two_steps)
    compare_with(driver, "step 1 · grpo")
    driver.execute_script("lens.choose(4)")
    assert driver.execute_script("return lens.model.comparison.row") == N + 4
    driver.execute_script("lens.choose(arguments[0])", N + 2)  # which has nothing of its own source beside it
    assert driver.execute_script("return lens.model.comparison.row") is None
    assert driver.find_element("id", "versus").get_property("value") == ""
    driver.execute_script("lens.choose(5)")
    assert driver.execute_script("return lens.model.comparison.row") == N + 5


def test_completions_that_differ_are_aligned(opened, two_steps):
    driver = opened(two_steps)
    compare_with(driver, "step 2 · grpo")
    shown = pairs(driver)
    assert shown[1:5] == [[" 0.1"] * 2, [" 0.2", " other"], ["", " more"], [" 0.3"] * 2]
    assert shown[-1] == [f" 0.{T - 1}", ""]
    assert len(driver.find_elements("css selector", ".pair.differs")) == 3
    assert choices(driver, "#other")[0] == "row 0 · r 1"
    put(driver, "#other", 2 * N + 1)
    assert pairs(driver)[0] == [" 0.0", " 1.0"]


def test_another_setting_stands_above_the_recorded_one(opened, two_steps):
    driver = opened(two_steps)
    put(driver, "#tau input[type=number]", 1)
    settle(driver)
    compare_with(driver, "its weights as recorded")
    shares = driver.execute_script(
        "return ['.token:not(.other)', '.other'].map((kind) => [...document.querySelectorAll(`#text ${kind}`)]"
        ".map((e) => e.style.backgroundColor))"
    )
    driver.find_element("css selector", "#what-if-box summary").click()
    driver.find_element("id", "reset").click()
    settle(driver)
    alone = driver.execute_script(
        "return [...document.querySelectorAll('#text .token')].map((e) => e.style.backgroundColor)"
    )
    assert shares[1] == alone != shares[0]


def test_two_runs_are_compared(browser, tmp_path):
    paths = [tmp_path / name / "credit.jsonl" for name in ("a", "b")]
    for path, tau in zip(paths, (0.05, 0.2), strict=True):
        write(path, rollouts(), credit.DGPO(tau=tau), prompts=PROMPTS)
    page = tmp_path / "two.html"
    page.write_text(lens.page({"a": lens.read(paths[0]), "b": lens.read(paths[1])}, "two"), encoding="utf-8")
    browser.get(page.as_uri())
    wait(browser, "return document.documentElement.dataset.ready")
    assert choices(browser, "#run") == ["all", "a", "b"]
    compare_with(browser, "b · dgpo(tau=0.2, kappa=1)")
    assert browser.execute_script("return lens.model.comparison.row") == N


def longest_common(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
    return table[-1, -1]


def test_an_alignment_keeps_all_tokens_in_order_and_as_many_as_it_can_together(opened, two_steps):
    driver = opened(two_steps)
    rng = np.random.default_rng(0)
    cases = [([], []), ([1], []), ([], [1, 2]), ([1, 2], [2, 1])]
    for _ in range(60):
        cases.append(
            tuple(rng.integers(0, rng.integers(1, 6), rng.integers(0, 25)).tolist() for _ in range(2))
        )
    found = driver.execute_script("return arguments[0].map(([a, b]) => lens.alignTokens(a, b))", cases)
    for (a, b), aligned in zip(cases, found, strict=True):
        assert [i for i, _ in aligned if i is not None] == list(range(len(a)))
        assert [j for _, j in aligned if j is not None] == list(range(len(b)))
        together = sum(None not in pair and a[pair[0]] == b[pair[1]] for pair in aligned)
        assert together == longest_common(a, b)


def test_long_completions_that_share_nothing_are_aligned_too(opened, two_steps):
    driver = opened(two_steps)
    aligned = driver.execute_script(
        "const range = (from) => Array.from({ length: 4000 }, (_, i) => from + i);"
        "return lens.alignTokens(range(0), range(9000))"
    )
    assert aligned == [[i, i] for i in range(4000)]


def follow(driver, link):
    driver.get("about:blank")
    driver.get(link)
    wait(driver, "return document.documentElement.dataset.ready")


def test_a_link_leads_to_the_completion_its_comparison_and_its_settings(opened, two_steps):
    driver = opened(two_steps)
    driver.execute_script("lens.choose(4)")
    compare_with(driver, "step 2 · grpo")
    put(driver, "#other", 2 * N + 3)
    put(driver, "#color-by", "h")
    put(driver, "#tau input[type=number]", 0.02)
    settle(driver)
    wait(driver, "return location.hash.includes('tau=0.02') && location.hash.includes('color=h')")
    link = driver.current_url
    follow(driver, link)
    settle(driver)
    state = driver.execute_script(
        "const { chosen, comparison, coloring, settings } = lens.model;"
        "return [chosen, comparison.row, coloring.name, settings]"
    )
    assert state == [4, 2 * N + 3, "h", {"tau": 0.02, "fraction": None, "kappa": 1}]
    assert driver.find_element("id", "versus").get_property("value") == driver.execute_script(
        "return lens.model.sourceOf(arguments[0])", 2 * N
    )


def test_a_link_survives_that_more_is_recorded(opened, two_steps):
    driver = opened(two_steps)
    driver.execute_script("lens.choose(arguments[0])", N + 3)
    fragment = driver.execute_script("return lens.linkTo(lens.model, lens.model.chosen)")
    earlier = two_steps.read_text()
    two_steps.unlink()
    write(two_steps, rollouts(9), credit.GRPO(), step=0)
    two_steps.write_text(two_steps.read_text() + earlier)
    driver = opened(two_steps)
    follow(driver, driver.current_url.partition("#")[0] + fragment)
    assert driver.find_element("id", "which").text == "step 1 · grpo · group 3 · row 3"


def test_a_link_to_what_is_not_there_says_so(opened, two_steps):
    driver = opened(two_steps)
    follow(driver, driver.current_url.partition("#")[0] + "#step=7&row=1")
    note = "The completion that the link names is not in this page."
    assert driver.find_element("id", "note").text == note
    driver.execute_script("lens.choose(1)")
    assert not driver.find_element("id", "note").is_displayed()
    driver.execute_script("location.hash = 'step=7&row=2'")
    wait(driver, "return document.getElementById('note').textContent === arguments[0]", note)
    driver.execute_script("location.hash = 'step=2&row=1'")
    wait(driver, "return lens.model.chosen === arguments[0]", 2 * N + 1)
    assert not driver.find_element("id", "note").is_displayed()


def test_a_link_to_a_completion_that_a_filter_hides_clears_the_filter(opened, two_steps):
    driver = opened(two_steps)
    put(driver, "#step", 2)
    driver.execute_script("location.hash = 'step=1&row=2'")
    wait(driver, "return lens.model.chosen === 2")
    assert driver.find_element("id", "step").get_property("value") == ""


def test_equal_completions_have_links_of_their_own(opened, tmp_path):
    path = tmp_path / "samples.jsonl"
    for _ in range(3):
        write(path, rollouts(), credit.GRPO(), step=1)
    driver = opened(path)
    fragment = driver.execute_script("return lens.linkTo(lens.model, arguments[0])", N + 2)
    follow(driver, driver.current_url.partition("#")[0] + fragment)
    assert driver.execute_script("return lens.model.chosen") == N + 2


def test_a_link_leads_to_the_equal_completion_beside(opened, tmp_path):
    path = tmp_path / "samples.jsonl"
    for run in range(3):  # of one name and step, as two trainings leave them that write to one file
        write(path, rollouts(run), credit.GRPO(), [[f" {run}.{row}"] * T for row in range(N)], step=1)
    driver = opened(path)
    driver.execute_script("lens.choose(arguments[0])", N + 2)
    put(driver, "#versus", "group")
    put(driver, "#other", N + 1)
    fragment = driver.execute_script("return lens.linkTo(lens.model, lens.model.chosen)")
    follow(driver, driver.current_url.partition("#")[0] + fragment)
    assert driver.execute_script("return [lens.model.chosen, lens.model.comparison.row]") == [N + 2, N + 1]


def test_recordings_of_one_step_are_told_apart_and_compared(opened, tmp_path):
    path = tmp_path / "samples.jsonl"
    for run in range(2):
        write(path, rollouts(run), credit.GRPO(), step=1, prompts=PROMPTS)
    driver = opened(path)
    assert choices(driver, "#group")[1::2] == ["step 1 · group 0 (3)", "step 1 · recording 2 · group 0 (3)"]
    compare_with(driver, "step 1 · recording 2")
    assert driver.execute_script("return lens.model.comparison.row") == N


def test_the_list_shows_the_completion_of_a_link_to_the_batch_view(opened, tmp_path):
    path = tmp_path / "samples.jsonl"
    for step in range(20):
        write(path, rollouts(), credit.GRPO(), step=step)
    driver = opened(path)
    follow(driver, driver.current_url.partition("#")[0] + "#step=15&row=2&view=batch")
    driver.find_element("id", "view-read").click()
    assert driver.find_element("css selector", "#rows [aria-selected=true]").is_displayed()


def test_a_link_without_settings_shows_what_was_recorded(opened, two_steps):
    driver = opened(two_steps)
    put(driver, "#tau input[type=number]", 0.02)
    put(driver, "#color-by", "h")
    driver.execute_script("location.hash = 'step=1&row=2'")
    wait(driver, "return lens.model.chosen === 2")
    assert driver.execute_script("return [lens.model.settings, lens.model.coloring.name]") == [None, "w"]
    assert driver.find_element("id", "state").get_property("textContent") == "as recorded"
