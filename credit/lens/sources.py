"""Files of records as runs, each of which has a name of its own."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from credit.lens.completion import Completion
from credit.lens.records import read

Runs = Mapping[str, Iterable[Completion]]
Source = str | Path | Iterable[Completion] | Mapping[str, str | Path | Iterable[Completion]]


def load(*sources: Source) -> dict[str, Iterable[Completion]]:
    """Completions by the name of their run, from paths of files of records or from completions themselves."""
    if not sources:
        raise ValueError("there is no source; expected a path of a file of records, or completions")
    names = name_runs([Path(source) for source in sources if isinstance(source, str | Path)])
    runs: dict[str, Iterable[Completion]] = {}
    for source in sources:
        if isinstance(source, str | Path):
            source = {names[Path(source)]: source}
        named = source if isinstance(source, Mapping) else {"samples": source}
        for name, each in named.items():
            runs[_make_unique(name, runs)] = read(each) if isinstance(each, str | Path) else _check(each)
    return runs


def _check(completions: Iterable[Completion]) -> Iterator[Completion]:
    for completion in completions:
        if not isinstance(completion, Completion):
            raise TypeError(
                f"a source holds {completion!r}; expected completions, as read(path) yields them, or several "
                "paths one by one, as in show(*paths)"
            )
        yield completion


def name_runs(paths: Sequence[Path]) -> dict[Path, str]:
    """The shortest end of each path that tells the paths apart: `a/credit.jsonl` and `b/credit.jsonl`."""
    distinct = set(paths)
    length = 1
    while len({path.parts[-length:] for path in distinct}) < len(distinct):
        length += 1
    return {path: Path(*path.parts[-length:]).as_posix() for path in distinct}


def _make_unique(name: str, taken: Runs) -> str:
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name} ({number})"
    return found


def select_steps(runs: Runs, steps: Sequence[int]) -> dict[str, list[Completion]]:
    """The completions of these steps.

    Raises:
        ValueError: a step is in no record; the message lists those that there are.
    """
    found: set[int] = set()
    selected: dict[str, list[Completion]] = {name: [] for name in runs}
    for name, completions in runs.items():
        for completion in completions:
            if completion.step is not None:
                found.add(completion.step)
            if completion.step in steps:
                selected[name].append(completion)
    missing = sorted(set(steps) - found)
    if missing:
        known = ", ".join(str(step) for step in sorted(found)) or "none, since the records name no step"
        raise ValueError(f"step {', '.join(map(str, missing))} is in no record; expected some of: {known}")
    return selected
