"""One line of log at start-up: the estimator in force, with every setting, defaults included."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from credit.adapters.fields import needed_statistics
from credit.adapters.framework import Framework
from credit.adapters.loss_report import Option
from credit.estimators.base import Estimator
from credit.settings import TAKES_DATA

logger = logging.getLogger("credit")


def report_estimator(
    framework: Framework, estimator: Estimator, own: Iterable[Option] = (), source: str = ""
) -> None:
    """Logs at INFO which estimator gives the advantages, with all its settings; call it once per run.

    Settings that are not at their defaults come first, with the default in brackets. The loss is left out:
    the framework's own options are in force, which `loss_report` compares. The line is seen although Python
    shows warnings alone: a level that nobody has set is INFO for this line, and where no handler is, it
    goes to stderr. `logging.getLogger("credit").setLevel("WARNING")` silences it, as does a level of the
    root logger above WARNING.

    Args:
        own: settings of the adapter's own that say how the estimator is fed: name, value and default.
        source: in words, where its token statistics come from, such as "from the models' logits".
    """
    settings = ", ".join(_write_settings([*_list_settings(estimator), *own]))
    names = needed_statistics(estimator)
    statistics = f"; token statistics: {', '.join(names)}{source and ', '}{source}" if names else ""
    name, described = framework.name_of(estimator), f": {settings}" if settings else ", which has no settings"
    with _visible():
        logger.info("%s trains with %s%s%s", framework.name, name, described, statistics)


def write_changed(estimator: Estimator) -> str:
    """The estimator's name with the settings that are not at their defaults."""
    settings = (
        f"{name}={_write(value)}" for name, value, default in _list_settings(estimator) if value != default
    )
    return f"{estimator.name}({', '.join(settings)})"


def _list_settings(estimator: Estimator) -> Iterator[Option]:
    """Name, value and default of each setting; the value is its own default where a setting has none."""
    for name, field in type(estimator).model_fields.items():
        value = getattr(estimator, name)
        if name in ("name", "loss"):
            continue
        fixed = not (field.is_required() or getattr(field, TAKES_DATA, False))
        yield name, value, field.get_default(call_default_factory=True) if fixed else value


def _write_settings(options: Iterable[Option]) -> list[str]:
    changed, usual = list[str](), list[str]()
    for name, value, default in options:
        if value == default:
            usual.append(f"{name}={_write(value)}")
        else:
            changed.append(f"{name}={_write(value)} (default {_write(default)})")
    return changed + usual


def _write(value: Any) -> str:
    """As Python writes it; an estimator, such as a part of a mix, by its name with its settings."""
    if isinstance(value, Estimator):
        return f"{value.name}({', '.join(_write_settings(_list_settings(value)))})"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_write, value))}]"
    return repr(value)


@contextmanager
def _visible() -> Iterator[None]:
    """Within it the logger's INFO is shown, unless a level of its own or of the root's says otherwise."""
    level, handler = logger.level, None
    if level == logging.NOTSET and logger.getEffectiveLevel() == logging.WARNING:  # Python's default
        logger.setLevel(logging.INFO)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.setLevel(level)
        if handler is not None:
            logger.removeHandler(handler)
