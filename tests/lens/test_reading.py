"""The page as something to read: at three sizes, light and dark, on paper, and copied from."""

import itertools

import numpy as np
import pytest
from browsing import put, wait
from lens_samples import N, T, rollouts, write

import credit

SIZES = {"laptop": (1280, 800), "notebook": (900, 720), "phone": (420, 800)}

# The least contrast of a text with what is behind it, and of the borders of what can be pressed or typed in.
CONTRASTS = """
const luminance = (c) => {
  const [r, g, b] = c.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const parse = (text) => {
  const [r, g, b, a = 1] = text.match(/[\\d.]+(e-\\d+)?/g).map(Number);
  return [r, g, b, a];
};
const over = (top, under) => [0, 1, 2].map((i) => top[3] * top[i] + (1 - top[3]) * under[i]);
const ground = (element) => {
  const layers = [];
  for (let each = element; each; each = each.parentElement) layers.push(parse(getComputedStyle(each).backgroundColor));
  return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
};
const ratio = (a, b) => {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
};
const name = (e) => `${e.tagName} ${e.id || e.className} ${e.textContent.slice(0, 20)}`;
const texts = [], borders = [];
for (const element of document.querySelectorAll("body *:not(script, noscript, svg *)")) {
  if (!element.checkVisibility() || element.closest(".unseen")) continue;
  const style = getComputedStyle(element), behind = ground(element);
  const shown = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || element.dataset.symbol;
  if (shown) texts.push([ratio(over(parse(style.color), behind), behind), name(element)]);
  if (element.matches("button:enabled, select, input, summary, .button, #list-pane, #reader") && parseFloat(style.borderTopWidth)) {
    const edge = parse(style.borderTopColor), outside = ground(element.parentElement);
    if (edge[3]) borders.push([ratio(over(edge, outside), outside), name(element)]);
  }
}
const least = (list) => list.sort((a, b) => a[0] - b[0])[0];
return [least(texts), least(borders)];
"""


@pytest.fixture
def resize(browser):
    """Gives the page's own area a size in pixels; afterwards it is as it was."""

    def use(width, height):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    yield use
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.fixture
def shown(opened, tmp_path):
    """A page with all kinds of rows: long ones, an invalid one, missing numbers, tokens that are not the policy's."""
    path = tmp_path / "samples.jsonl"
    given = rollouts(rewards=np.array([1.0, 0, np.nan, 1, 0.5, 0]))
    given.deviation[1, 0] = np.nan
    tokens = [[f" token{t}" if t % 9 else "\n" for t in range(T)] for _ in range(N)]
    more = {"prompts": ["How many?"] * N, "extra": {"answer": list("123456")}}
    for step, estimator in itertools.product((1, 2), (credit.DGPO(tau=0.05), credit.GRPO())):
        write(path, given, estimator, tokens, step=step, **more)
    return opened(path)


def dark(driver, wanted):
    if (driver.find_element("id", "theme").get_attribute("aria-pressed") == "true") != wanted:
        driver.find_element("id", "theme").click()


@pytest.mark.parametrize("size", SIZES)
def test_the_text_takes_the_most_room(shown, resize, size):
    width, height = SIZES[size]
    resize(width, height)
    shown.execute_script("lens.choose(0)")  # as in a page that opens in this size
    box = shown.find_element("id", "text").rect
    assert box["height"] >= 0.5 * height if size != "phone" else box["height"] >= 300
    assert box["width"] >= 0.6 * width
    assert shown.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    if size != "phone":
        assert shown.execute_script("return document.documentElement.scrollHeight <= innerHeight")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_texts_and_borders_stand_out(shown, resize, size, theme):
    resize(*SIZES[size])
    dark(shown, theme == "dark")
    versus = shown.execute_script("return document.querySelector('#versus option:last-child').value")
    for row, comparison, coloring, view in itertools.product(
        (0, 1, 2), ("", versus), ("w", "h"), ("read", "batch")
    ):
        put(shown, "#color-by", coloring)
        shown.execute_script("lens.choose(arguments[0]); lens.view(arguments[1])", row, view)
        if view == "read":
            put(shown, "#versus", comparison)
        text, border = shown.execute_script(CONTRASTS)
        assert text[0] >= 4.5, text[1]
        assert border[0] >= 3, border[1]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_every_shade(shown, theme):
    dark(shown, theme == "dark")
    shown.execute_script(
        "const tokens = [...document.querySelectorAll('#text .token:not(.outside)')];"
        "const paints = ['--more', '--less', '--level'].flatMap((name) => [0.1, 0.3, 0.5, 0.7, 0.9, 1]"
        ".map((share) => `rgb(var(${name}) / ${share})`));"
        "tokens.forEach((token, i) => { if (i < paints.length) token.style.backgroundColor = paints[i]; });"
        "if (tokens.length < paints.length) throw new Error('too few tokens');"
    )
    text, _ = shown.execute_script(CONTRASTS)
    assert text[0] >= 4.5, text[1]


def copied(driver, first, last):
    """What a copy of the reader's text puts on the clipboard, from one token to another."""
    return driver.execute_script(
        "const tokens = document.querySelectorAll('#text .token[data-place]:not(.other)');"
        "document.getSelection().setBaseAndExtent(tokens[arguments[0]], 0, tokens[arguments[1]], tokens[arguments[1]].childNodes.length);"
        "const data = new DataTransfer();"
        "const event = new ClipboardEvent('copy', { clipboardData: data, bubbles: true, cancelable: true });"
        "tokens[0].parentNode.dispatchEvent(event);"
        "return data.getData('text/plain')",
        first,
        last,
    )


def test_copied_text_is_the_models_text(opened, tmp_path):
    pieces = [" a", "\n", "", "\tb", "\r\n", "  ", "\n\n", "<b>", *[" w"] * (T - 8)]
    path = tmp_path / "samples.jsonl"
    for estimator in (credit.DGPO(), credit.GRPO()):
        write(path, rollouts(), estimator, [pieces] * N, prompts=["p"] * N)
    driver = opened(path)
    assert copied(driver, 0, T - 1) == "".join(pieces)
    put(
        driver,
        "#versus",
        driver.execute_script("return document.querySelector('#versus option:last-child').value"),
    )
    assert driver.find_elements("css selector", "#text .pair")
    assert copied(driver, 1, 7) == "".join(pieces[1:8])


def test_breaks_and_empty_tokens_are_visible(opened, tmp_path):
    named = ["constructor", "toString", "__proto__"]  # which every object of JavaScript has
    pieces = ["a\n", "", "\tb", "\r", *named, *["w"] * (T - 7)]
    driver = opened(write(tmp_path / "samples.jsonl", rollouts(), credit.GRPO(), [pieces] * N))
    symbols = driver.execute_script(
        "return [...document.querySelectorAll('#text .symbol')].map((e) => getComputedStyle(e, '::before').content)"
    )
    assert symbols == ['"⏎"', '"◌"', '"⇥"', '"␍"']


@pytest.mark.parametrize("menu", ["#bounds", "#what-if-box"])
def test_a_menu_fits_a_narrow_page_and_escape_leaves_it_where_it_was_opened(shown, resize, menu):
    from selenium.webdriver.common.keys import Keys

    resize(320, 640)
    summary = shown.find_element("css selector", f"{menu} summary")
    summary.click()
    edges = shown.execute_script(
        "return [...document.querySelectorAll(`${arguments[0]} input`)].map((e) => e.getBoundingClientRect().right)",
        menu,
    )
    assert max(edges) < 320
    shown.find_element("css selector", f"{menu} input[type=number]").send_keys(Keys.ESCAPE)
    assert shown.find_element("css selector", menu).get_attribute("open") is None
    assert shown.switch_to.active_element == summary


def test_on_paper_the_text_is_whole_and_its_colours_stay(shown, resize):
    dark(shown, True)
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    for hidden in ("#search", "#bounds", "#what-if", "#list-pane", "#link", "#theme"):
        assert not shown.find_element("css selector", hidden).is_displayed()
    for told in ("#state", "#color-by"):  # what the numbers and the colors are
        assert shown.find_element("css selector", told).is_displayed()
    styles = shown.execute_script(
        "const style = (id) => getComputedStyle(document.getElementById(id));"
        "return [style('text').overflowY, style('text').printColorAdjust, getComputedStyle(document.body).color]"
    )
    assert styles == ["visible", "exact", "rgb(23, 32, 44)"]
    text, _ = shown.execute_script(CONTRASTS)
    assert text[0] >= 4.5, text[1]


def test_on_paper_the_batch_is_whole_and_its_curves_stand_out(shown, resize):
    dark(shown, True)
    resize(600, 800)
    shown.find_element("id", "view-batch").click()
    wait(shown, "return document.querySelector('#batch .part')")
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    tone = "return getComputedStyle(document.documentElement).getPropertyValue('--series-2')"
    assert shown.execute_script(tone) == "#3f9089"  # the dark page's is pale
    hidden = "return [...document.querySelectorAll('.scroll')].filter((e) => getComputedStyle(e).overflowX !== 'visible')"
    assert not shown.execute_script(hidden)


def test_what_else_was_recorded_is_shown(opened, tmp_path):
    extra = {"answer": ["42"] * N, "tools": [[{"name": "<img src=x onerror=window.pwned=1>"}]] * N}
    driver = opened(write(tmp_path / "samples.jsonl", rollouts(), credit.GRPO(), extra=extra))
    assert driver.find_element("css selector", "#prompt-box summary").text == "answer · tools"
    shown = [each.text for each in driver.find_elements("css selector", "#extras dd")]
    assert shown[0] == "42"
    assert "<img src=x onerror=window.pwned=1>" in shown[1]
    assert driver.execute_script("return window.pwned") is None


def test_the_view_of_the_batch_takes_the_place_of_the_reader(shown):
    from selenium.webdriver.common.keys import Keys

    shown.find_element("id", "view-batch").click()
    assert shown.find_element("id", "batch").is_displayed()
    assert not shown.find_element("id", "text").is_displayed()
    wait(shown, "return location.hash.includes('view=batch')")
    link = shown.current_url
    shown.find_element("id", "view-batch").send_keys(Keys.ARROW_LEFT)
    assert shown.find_element("id", "text").is_displayed()
    shown.get("about:blank")
    shown.get(link)
    wait(shown, "return document.documentElement.dataset.ready")
    assert shown.find_element("id", "batch").is_displayed()
