"""Time against tokens and against vocabulary, from the rows of a report."""

from typing import Any

from measurements import Report


def plot(report: Report, peers: tuple[str, ...], name: str | None = None) -> None:
    """One line per peer, through the shape and type of the first row; of rows of that name, or of all."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in report.rows if name is None or row["name"] == name]
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4))
    for axis, along, fixed in zip(axes, ("tokens", "vocabulary"), ("vocabulary", "tokens"), strict=True):
        for who in peers:
            line = points(rows, who, along, fixed)
            if line:
                axis.plot(*zip(*line, strict=True), marker="o", label=who)
        axis.set(xlabel=along, ylabel="ms", xscale="log", yscale="log", title=report.name)
        axis.legend()
    figure.tight_layout()
    figure.savefig(report.path.with_suffix(".png"), dpi=100)


def points(rows: list[dict[str, Any]], who: str, along: str, fixed: str) -> list[tuple[int, float]]:
    """(tokens or vocabulary, ms) of the rows that differ from the first in that alone."""
    like = rows[0]
    mine = [row for row in rows if row["who"] == who and "ms" in row]
    return sorted(
        {(r[along], r["ms"]) for r in mine if r[fixed] == like[fixed] and r["kind"] == like["kind"]}
    )
