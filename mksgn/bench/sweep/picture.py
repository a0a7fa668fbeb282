"""The picture of a sweep: all points in accuracy and energy, and the Pareto front through the best."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mksgn.common.extras import require
from mksgn.common.writing import replacing_file

if TYPE_CHECKING:
    from mksgn.bench.sweep.pareto import Row

COORDINATES = (("steps", "S"), ("threshold", "th"), ("bits", "b"), ("chip", ""))


def draw(points: list[Row], best: list[Row], model: str, path: Path) -> None:
    """Draw the points under one energy model as PNG.

    Args:
        points: All points; those that the model does not price are left out.
        best: The Pareto front, by increasing energy.
        model: Name of the energy model.
        path: File to write.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("the picture of a Pareto front", "report", "matplotlib")
    from matplotlib.figure import Figure  # imported here, since it takes half a second

    points = [row for row in points if model in row.energy]
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot()

    def at(rows: list[Row]) -> tuple[list[float], list[float]]:
        return [row.energy[model].mJ for row in rows], [100 * row.top1 for row in rows]

    for name in dict.fromkeys(row.model for row in points):
        group = [row for row in points if row.model == name]
        axes.scatter(*at(group), s=26, alpha=0.6, label=name, clip_on=False)
    # any accuracy below that of a point can be had at any energy above that of the point
    axes.step(*at(best), where="post", color="black", lw=1.6, label="Pareto front", zorder=3)
    axes.scatter(*at(best), s=60, facecolors="none", edgecolors="black", zorder=4, clip_on=False)
    on_front = {row.label for row in best}
    for row, text in zip(points, labels(points), strict=True):
        front = row.label in on_front
        axes.annotate(
            text,
            (row.energy[model].mJ, 100 * row.top1),
            textcoords="offset points",
            xytext=(-6, 6) if front else (5, -9),
            ha="right" if front else "left",
            fontsize=8 if front else 6.5,
            fontweight="bold" if front else "normal",
            color="black" if front else "0.45",
        )
    bound = any(row.energy[model].lower_bound for row in points)
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_ylim(top=100)
    axes.set_xlabel(f"mJ per {points[0].unit} under {model}{', a lower bound' if bound else ''}")
    axes.set_ylabel("top-1, %")
    axes.grid(alpha=0.3)
    axes.legend(title="network", fontsize=8, loc="lower right")
    with replacing_file(path) as file:
        figure.savefig(file, format="png", dpi=150)


def labels(points: list[Row]) -> list[str]:
    """Return a label for each point from the coordinates that differ between points; the colour shows the network."""
    varying = [(name, prefix) for name, prefix in COORDINATES if len({str(getattr(row, name)) for row in points}) > 1]
    return [" ".join(f"{prefix}{_text(getattr(row, name))}" for name, prefix in varying) or row.label for row in points]


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
