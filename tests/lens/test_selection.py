"""Which completions the page lists, and in which order: filters, search, and any column to sort by."""

import numpy as np
import pytest
from browsing import order, put, wait
from lens_samples import N, T, rollouts, write

import credit

STEPS = (3, 10, 200)


@pytest.fixture
def three_steps(tmp_path):
    """Two estimators at each of three steps."""
    path = tmp_path / "samples.jsonl"
    for step in STEPS:
        for estimator in (credit.DGPO(tau=0.05), credit.GRPO()):
            write(path, rollouts(step), estimator, step=step)
    return path


def test_completions_are_filtered_by_reward_group_and_effect(opened, tmp_path):
    given = rollouts()
    estimator = credit.DGPO(tau=0.05)
    driver = opened(write(tmp_path / "samples.jsonl", given, estimator))
    effect = [row[mask].std() for row, mask in zip(estimator(given).weights, given.mask, strict=True)]
    assert order(driver) == [0, 1, 2, 3, 4, 5]
    put(driver, "#group", "0/3")
    assert order(driver) == [3, 4, 5]
    put(driver, "#reward-min", 0.5)
    assert order(driver) == [3, 4]
    put(driver, "#reward-max", 0.75)
    assert order(driver) == [4]
    assert driver.find_element("id", "which").text == "group 3 · row 4"
    for selector in ("#group", "#reward-min", "#reward-max"):
        put(driver, selector, "")
    put(driver, "#effect-min", sorted(effect)[3])
    assert order(driver) == [row for row in range(N) if effect[row] >= sorted(effect)[3]]
    assert driver.find_element("id", "count").text == "3 of 6"
    put(driver, "#effect-min", 1e9)
    assert order(driver) == []
    assert driver.find_element("id", "verdict").text == "No completion passes the filters."


def test_completions_are_filtered_by_the_sign_of_their_advantage(opened, tmp_path):
    given = rollouts(rewards=np.array([1.0, 0, np.nan, 1, 1, 1]))
    driver = opened(write(tmp_path / "samples.jsonl", given, credit.GRPO()))
    for sign, expected in (("up", [0]), ("down", [1]), ("none", [2, 3, 4, 5]), ("", list(range(N)))):
        put(driver, "#sign", sign)
        assert order(driver) == expected


def test_completions_are_filtered_by_step_and_estimator(opened, three_steps):
    driver = opened(three_steps)
    assert len(order(driver)) == 6 * N
    put(driver, "#estimator", 1)
    assert order(driver) == [*range(N, 2 * N), *range(3 * N, 4 * N), *range(5 * N, 6 * N)]
    put(driver, "#step", 10)
    assert order(driver) == list(range(3 * N, 4 * N))
    assert driver.find_element("id", "which").text == "step 10 · grpo · group 0 · row 0"
    offered = driver.execute_script(
        "return [...document.querySelectorAll('#group option')].map((o) => o.textContent)"
    )
    assert offered == ["all", "step 10 · grpo · group 0 (3)", "step 10 · grpo · group 3 (3)"]
    put(driver, "#group", "3/3")
    put(driver, "#estimator", 0)  # in which there is no such group, so that all are shown again
    assert order(driver) == list(range(2 * N, 3 * N))
    shown = driver.execute_script(
        "return [...document.querySelectorAll('#rows .source')].map((e) => e.textContent)"
    )
    assert set(shown) == {"dgpo(tau=0.05, kappa=1)"}
    assert not driver.find_element("id", "run").is_displayed()


def test_a_text_is_found_in_every_completion_and_prompt(opened, tmp_path):
    tokens = [[" w"] * T for _ in range(N)]
    tokens[1][7:10] = [" Ther", "efore", ", ["]
    accents = [[" w"] * T for _ in range(N)]
    accents[2][3:5], accents[3][3] = [" cafe", "\u0301"], " caf\u00e9"
    given = rollouts()
    path = tmp_path / "samples.jsonl"
    for step in range(40):
        prompts = [f"prompt {step}.{row}" for row in range(N)]
        write(path, given, credit.GRPO(), {38: accents, 39: tokens}.get(step), step=step, prompts=prompts)
    driver = opened(path)

    def search(text):
        put(driver, "#search", text)
        wait(driver, "return lens.model.selection.filter.text === arguments[0]", text)
        return order(driver)

    assert search("therefore, [") == [39 * N + 1]
    found = driver.execute_script(
        "return [...document.querySelectorAll('#text .found')].map((e) => e.textContent)"
    )
    assert found == [" Ther", "efore", ", ["]
    assert search("Prompt 17.") == [17 * N + row for row in range(N)]
    assert search("nowhere") == []
    assert search("cafe\u0301") == search("CAF\u00c9") == [38 * N + 2, 38 * N + 3]
    assert len(search("")) == 40 * N
    assert not driver.find_elements("css selector", ".found")


def test_any_column_sorts_in_both_directions_and_unknown_values_come_last(opened, tmp_path):
    given = rollouts(rewards=np.array([1.0, 0, np.nan, 1, 0, 0.5]))
    given.deviation[4, 0] = np.nan
    estimator = credit.DGPO(tau=0.05)
    answers = ["9", "10", "b", "a", "9", None]
    driver = opened(write(tmp_path / "samples.jsonl", given, estimator, extra={"answer": answers}))
    spread = [row[mask].std() for row, mask in zip(estimator(given).weights, given.mask, strict=True)]
    spread[2] = spread[4] = np.nan
    columns = {
        "row": list(range(N)),
        "reward": [1, 0, np.nan, 1, 0, 0.5],
        "effect": spread,
        "tokens": [T] * N,
        "group": [0, 0, 0, 3, 3, 3],
        "deviation": [
            np.nan if i == 2 else np.nanmean(d[m])
            for i, (d, m) in enumerate(zip(given.deviation, given.mask, strict=True))
        ],
    }
    for name, values in columns.items():
        for down in (False, True):
            put(driver, "#sort", name)
            if down:
                driver.find_element("id", "direction").click()
            sign = -1 if down else 1
            assert order(driver) == sorted(
                range(N), key=lambda i: (np.isnan(values[i]), sign * np.nan_to_num(values[i]), i)
            ), name
    put(driver, "#sort", "extra answer")
    assert order(driver) == [0, 4, 1, 3, 2, 5]  # 9 before 10, letters last, what is missing at the end


def test_further_values_of_several_kinds_have_one_order(opened, tmp_path):
    answers = ["-3", -5, "-10", "0.5", "0.25", "b"]
    extra = {"answer": answers, "__proto__": [None, 2, 1, None, None, None]}
    driver = opened(write(tmp_path / "samples.jsonl", rollouts(), credit.GRPO(), extra=extra))
    put(driver, "#sort", "extra answer")
    assert order(driver) == [2, 1, 0, 4, 3, 5]
    put(driver, "#sort", "extra __proto__")
    assert order(driver)[:2] == [2, 1]


def test_the_heads_of_the_list_sort(opened, three_steps):
    driver = opened(three_steps)
    head = driver.find_element("css selector", "#columns [data-column=step]")
    assert order(driver)[0] == 0
    head.click()
    assert order(driver)[0] == 4 * N
    assert head.get_attribute("aria-pressed") == "true"
    head.click()
    assert order(driver)[0] == 0
    assert driver.find_element("id", "sort").get_property("value") == "step"
    head.click()
    assert driver.find_element("id", "sort").get_property("value") == "file"


def test_arrow_keys_choose_completions(opened, tmp_path):
    from selenium.webdriver.common.keys import Keys

    driver = opened(write(tmp_path / "samples.jsonl", rollouts(), credit.GRPO()))
    box = driver.find_element("id", "list")
    box.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert driver.find_element("id", "which").text == "group 0 · row 2"
    box.send_keys(Keys.END)
    assert driver.find_element("id", "which").text == "group 3 · row 5"
    assert box.get_attribute("aria-activedescendant") == "row-5"


def test_one_group_is_shown_alone_and_all_again(opened, tmp_path):
    driver = opened(write(tmp_path / "samples.jsonl", rollouts(), credit.GRPO()))
    button = driver.find_element("id", "only-group")
    driver.execute_script("lens.choose(4)")
    button.click()
    assert order(driver) == [3, 4, 5]
    assert button.text == "All groups"
    button.click()
    assert order(driver) == list(range(N))
    assert button.text == "Only this group"
