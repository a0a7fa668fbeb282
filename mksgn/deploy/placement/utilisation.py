"""How full the cores are: a table for the terminal, and a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from mksgn.common.extras import require
from mksgn.common.tables import table
from mksgn.common.writing import replacing_file
from mksgn.deploy.errors import DeployError
from mksgn.deploy.placement.chips import RESOURCES
from mksgn.deploy.placement.place import Placement, PopulationPlacement

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 40  # a row per core up to here, one per population beyond
# Okabe and Ito's palette, distinguishable with colour blindness; in the order of RESOURCES
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
OVER, EMPTY = "#000000", "#F2F2F2"
FORMATS = ("png", "svg", "pdf")
FORMATS_TEXT = ", ".join(f".{suffix}" for suffix in FORMATS)


def shares(placement: Placement) -> np.ndarray:
    """Fraction of each limit in use: float, (cores, RESOURCES); 0 where the limit has not been published."""
    return placement.usage / placement.chip.capacities


def utilisation_table(placement: Placement) -> Table:
    """Make a table with a row per core; beyond MOST_ROWS, per population its fullest core (and the mean)."""
    per_core = placement.cores <= MOST_ROWS
    limits = placement.chip.core_limits
    title = f"{_count(placement.cores, 'core')} on {_count(placement.chips, 'chip')} of {placement.chip.name}"
    detail = "" if per_core else "; fullest core of each population (mean)"
    result = table(title + detail, ("population", "core" if per_core else "cores", *RESOURCES))
    for population in placement.populations:
        if per_core:
            for core, used in enumerate(population.usage, start=population.first_core):
                cells = [_amount(int(n), limit) for n, limit in zip(used, limits, strict=True)]
                result.add_row(population.name, str(core), *cells)
        else:
            result.add_row(population.name, f"{population.cores:,}", *_summaries(population, limits))
    result.add_section()
    result.add_row("limit", "", *("not published" if limit is None else f"{limit:,}" for limit in limits))
    return result


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def _amount(value: int, limit: int | None) -> str:
    return f"{value:,}" if limit is None else f"{value:,} {value / limit:4.0%}"


def _summaries(population: PopulationPlacement, limits: tuple[int | None, ...]) -> list[str]:
    cells = []
    for used, limit in zip(population.usage.T, limits, strict=True):
        mean = f"{used.mean():,.0f}" if limit is None else f"{used.mean() / limit:.0%}"
        cells.append(f"{_amount(int(used.max()), limit)} ({mean})")
    return cells


def draw(placement: Placement, path: Path | str) -> None:
    """Draw the cores as a grid, coloured by their fullest resource, next to the number of cores of each population.

    Args:
        placement: what to draw.
        path: the file to write, as PNG, SVG or PDF by its suffix.

    Raises:
        DeployError: for another suffix, or if the file cannot be written.
    """
    require("the picture of a placement", "report", "matplotlib")
    from matplotlib.figure import Figure  # takes half a second, which no other command needs
    from matplotlib.patches import Patch

    path = Path(path)
    if path.suffix[1:].lower() not in FORMATS:
        raise DeployError(f"{path}: a picture is written as {FORMATS_TEXT}; give the path one of these suffixes")
    chip, used = placement.chip, shares(placement)
    rows = max(1, len(placement.populations))
    figure = Figure(figsize=(12, max(4.5, 0.19 * rows + 1.8)), layout="constrained")
    grid, bars = figure.subplots(1, 2, width_ratios=(1.1, 1))
    columns = max(1, math.ceil(math.sqrt(max(1, placement.cores))))
    cells = np.full((math.ceil(max(1, placement.cores) / columns) * columns, 3), _rgb(EMPTY))
    cells[: placement.cores] = _colours(used)
    distinct = columns <= 32  # beyond, cores are dots, and fill the space instead of being square
    grid.imshow(cells.reshape(-1, columns, 3), interpolation="nearest", aspect="equal" if distinct else "auto")
    grid.set_anchor("N")
    grid.set_xticks([])
    grid.set_yticks([])
    grid.set_title(f"{_count(placement.cores, 'core')}, row by row; the fuller, the darker", loc="left")
    if distinct:
        grid.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
        grid.set_yticks(np.arange(len(cells) // columns + 1) - 0.5, minor=True)
        grid.grid(which="minor", color="white", linewidth=1.5)
        grid.tick_params(which="both", length=0)
    limited = [i for i, limit in enumerate(chip.core_limits) if limit is not None]
    _draw_bars(bars, placement, used, limited)
    key = [Patch(color=COLOURS[i], label=RESOURCES[i]) for i in limited]
    if (used > 1).any():
        key.append(Patch(color=OVER, label="over its limit"))
    unpublished = [resource for i, resource in enumerate(RESOURCES) if i not in limited]
    title = "fullest resource" + (f" (no limit published: {', '.join(unpublished)})" if unpublished else "")
    figure.legend(handles=key, title=title, loc="outside lower center", ncols=len(key), frameon=False)
    figure.suptitle(f"{_count(placement.chips, 'chip')} of {chip.name}")
    kind = path.suffix[1:].lower()
    try:
        with replacing_file(path) as file:
            figure.savefig(file, format=kind, dpi=120, metadata={"Date": None} if kind == "svg" else None)
    except OSError as error:
        raise DeployError(f"{path}: cannot be written ({error.strerror})") from error


def _draw_bars(axes: Axes, placement: Placement, used: np.ndarray, limited: list[int]) -> None:
    """Draw a bar per population: its cores, by their fullest resource."""
    fullest = used.argmax(axis=1)
    over = (used > 1).any(axis=1)
    names = [p.name for p in placement.populations]
    left = np.zeros(len(names))
    kinds = [((fullest == i) & ~over, COLOURS[i]) for i in limited] + [(over, OVER)]
    for chosen, colour in kinds:
        counts = np.array([int(chosen[p.first_core : p.first_core + p.cores].sum()) for p in placement.populations])
        axes.barh(np.arange(len(names)), counts, left=left, color=colour, height=0.8)
        left += counts
    axes.set_yticks(np.arange(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("cores")
    axes.set_title("by population", loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _colours(used: np.ndarray) -> np.ndarray:
    """Colour each core by its fullest resource, a quarter of the colour if almost empty: (cores, 3) in 0 … 1."""
    if not len(used):
        return np.zeros((0, 3))
    full = np.array([_rgb(colour) for colour in COLOURS])[used.argmax(axis=1)]
    depth = 0.25 + 0.75 * np.clip(used.max(axis=1, keepdims=True), 0, 1)
    colours = 1 - depth * (1 - full)
    colours[(used > 1).any(axis=1)] = _rgb(OVER)
    return colours


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue
