"""How the lens stands a large file: python benchmarks/lens.py [--rows 1000] [--tokens 2000]

Writes, packs and opens such a file in a headless Chromium (needs selenium, chromium, chromedriver), scrolls
its list, moves its sliders and shows the batch. Times are CPU milliseconds of Python or of the page's main
thread, so that other jobs of the machine hardly show.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measurements import cpu_name

import credit
from credit import lens

FRAMES = 200
SCROLL = f"""
const done = arguments[0], list = document.getElementById("list");
let k = 0;
(function frame() {{
  list.scrollTop = TOP;
  if (++k < {FRAMES}) requestAnimationFrame(frame); else done();
}})();
"""
WHEEL, JUMPS = (SCROLL.replace("TOP", top) for top in ("300 * k", "(k * 617_682) % list.scrollHeight"))
WEIGH = "const done = arguments[1]; lens.weigh(arguments[0]).then(done)"
BATCH = """
const done = arguments[0];
lens.view("batch");
(function look() { lens.batch.busy ? setTimeout(look, 20) : done(); })();
"""


def samples(path: Path, rows: int, tokens: int) -> None:
    """Completions of made-up words, in groups of 8, with log-normal deviation and entropy."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlu"))
    words = [" " + "".join(rng.choice(letters, rng.integers(1, 8))) for _ in range(30_000)]
    estimator = credit.DGPO(tau=0.005)
    for start in range(0, rows, 104):
        shape = min(104, rows - start), tokens
        log_normal = np.minimum(0.02 * np.exp(1.3 * rng.normal(size=(2, *shape))), 1.0).astype("f4")
        log_probs = -rng.exponential(size=(2, *shape)).astype("f4")
        rollouts = credit.Rollouts(
            rng.integers(0, 2, shape[0]).astype("f4"),
            np.arange(shape[0]) // 8,
            np.ones(shape, bool),
            *log_probs,
            *log_normal,
        )
        lens.record(
            path,
            tokens=[[words[i] for i in row] for row in rng.integers(0, len(words), shape)],
            rollouts=rollouts,
            result=estimator(rollouts),
            estimator=estimator,
            step=start,
        )


def browser() -> Any:
    """A headless Chromium whose clock counts the CPU time of the page's main thread."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1440,900"):
        options.add_argument(argument)
    service = webdriver.chrome.service.Service(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(600)
    driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    return driver


def busy(driver: Any) -> float:
    """CPU milliseconds of the main thread so far."""
    found = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return 1e3 * next(metric["value"] for metric in found if metric["name"] == "TaskDuration")


def in_browser(path: Path) -> dict[str, float]:
    """Opening, scrolling, choosing, and weighing anew."""
    driver = browser()
    result = {}

    def measure(name: str, times: int, action: Any) -> None:
        before = busy(driver)
        action()
        result[name] = (busy(driver) - before) / times

    def open_it() -> None:
        driver.get(path.as_uri())
        while not driver.execute_script("return document.documentElement.dataset.ready"):
            time.sleep(0.2)

    measure("open", 1, open_it)
    measure("a frame of scrolling", FRAMES, lambda: driver.execute_async_script(WHEEL))
    measure("a jump to anywhere", FRAMES, lambda: driver.execute_async_script(JUMPS))
    choose = "for (let k = 0; k < 20; k++) { lens.choose(31 * k); document.body.offsetHeight; }"
    measure("another completion", 20, lambda: driver.execute_script(choose))
    for name, fraction in (("another tau, all weights", None), ("another target, all weights", 0.5)):
        settings = {"tau": 0.01, "fraction": fraction, "kappa": 1}
        measure(name, 1, lambda settings=settings: driver.execute_async_script(WEIGH, settings))
    measure("the batch view", 1, lambda: driver.execute_async_script(BATCH))
    driver.quit()
    return result


def main(rows: int, tokens: int) -> None:
    """Prints the figures as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        records, html = Path(folder) / "samples.jsonl", Path(folder) / "lens.html"
        samples(records, rows, tokens)
        start = time.process_time()
        html.write_text(lens.page(lens.read(records), records.name), encoding="utf-8")
        result = {"write the page": 1e3 * (time.process_time() - start)} | in_browser(html)
        sizes = {"records": records.stat().st_size / 1e6, "page": html.stat().st_size / 1e6}
    rounded = {name: round(value, 1) for name, value in result.items()}
    figures = {"cpu": cpu_name(), "rows": rows, "tokens": tokens, "megabytes": sizes, "cpu_ms": rounded}
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=2000)
    main(**vars(parser.parse_args()))
