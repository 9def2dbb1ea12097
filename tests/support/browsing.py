"""What tests of the page do in a browser."""

from typing import Any

import numpy as np


def wait(driver: Any, script: str, *arguments: Any) -> None:
    """Waits until the script returns something true."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 600, poll_frequency=0.05).until(lambda d: d.execute_script(script, *arguments))


def put(driver: Any, selector: str, value: Any) -> None:
    """Sets an input as a user does."""
    driver.execute_script(
        "const input = document.querySelector(arguments[0]); input.value = arguments[1];"
        "input.dispatchEvent(new Event('input', { bubbles: true }))",
        selector,
        str(value),
    )


def settle(driver: Any) -> None:
    """Waits until all weights are those of the settings."""
    wait(driver, "return !lens.model.busy")


def weights(driver: Any) -> Any:
    """The weights of all tokens, one response after another."""
    return np.array(driver.execute_script("return Array.from(lens.model.weights)"))


def metrics(driver: Any) -> dict[str, float]:
    """The page's metrics over the completions that it shows."""
    return driver.execute_script(
        "return lens.metricsOf(lens.model.order.map((row) => lens.model.effectOf(row)))"
    )


def order(driver: Any) -> list[int]:
    """The completions that it shows."""
    return driver.execute_script("return lens.model.order")
