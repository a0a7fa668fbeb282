"""A comparison as tables on a terminal, as Markdown for a pull request, and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from mksgn.bench.compare.gate import Verdict
from mksgn.bench.compare.runs import Comparison, Difference, LayerDifference

SCHEMA = "mksgn.compare/1"
LAYERS_SHOWN = ("spikes", "syn_ops", "axon_out")
LAYER_HEADINGS = (
    "layer", "neurons that differ", "spikes, a", "spikes, b", "spikes", "syn_ops", "axon_out", "firing rate", "also",
)  # fmt: skip
NONE = "–"


@dataclass(frozen=True)
class Grid:
    """A table without a form: its title, its headings, the first of them to the left, and rows of text."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def tables(found: Comparison, verdicts: Sequence[Verdict] = ()) -> list[Table]:
    """For the terminal: conditions that differ, figures, classes and layers that differ, and the bounds."""
    return [_rich(grid) for grid in _grids(found, verdicts)]


def markdown(found: Comparison, verdicts: Sequence[Verdict] = ()) -> str:
    """The same as Markdown; what is long is folded away."""
    parts = [f"### {_cell(found.names[1])} against {_cell(found.names[0])}", *notes(found)]
    for grid in _grids(found, verdicts):
        rows = [grid.headings, tuple("---" if i == 0 else "---:" for i in range(len(grid.headings))), *grid.rows]
        lines = "\n".join("| " + " | ".join(_cell(text) for text in row) + " |" for row in rows)
        folded = len(grid.rows) > 8 and not grid.title.startswith("bounds")
        title = _cell(grid.title)
        parts.append(
            f"<details><summary>{title}</summary>\n\n{lines}\n\n</details>" if folded else f"**{title}**\n\n{lines}"
        )
    return "\n\n".join(parts) + "\n"


def as_json(found: Comparison, verdicts: Sequence[Verdict] = ()) -> str:
    """Everything that was compared, equal figures included."""

    def figure(value: Difference) -> dict[str, Any]:
        return {**asdict(value), "change": value.change, "rise": value.rise}

    values = {
        "schema": SCHEMA,
        "a": found.names[0],
        "b": found.names[1],
        "other_data": list(found.other_data),
        "conditions": [{**asdict(condition), "same": condition.same} for condition in found.conditions],
        "predictions_that_differ": found.predictions,
        "metrics": [figure(value) for value in found.metrics],
        "energies": [figure(value) for value in found.energies],
        "classes": [figure(value) for value in found.classes],
        "layers": [
            {
                "name": layer.name,
                "only_in": layer.only_in,
                "neurons_that_differ": layer.neurons,
                "values": [figure(value) for value in layer.values],
            }
            for layer in found.layers
        ],
        "bounds": [asdict(verdict) for verdict in verdicts],
    }
    return json.dumps(values, indent=2, ensure_ascii=False)


def notes(found: Comparison) -> list[str]:
    """Sentences that no table holds."""
    said = []
    if found.other_data:
        said.append(
            f"The runs are of other clips ({'; '.join(found.other_data)}): their figures are of different things."
        )
    if found.predictions is not None:
        said.append(f"{found.predictions} of {found.a.data.clips} clips are classed otherwise.")
    same = sum(layer.same for layer in found.layers)
    said.append(f"{same} of {len(found.layers)} layers are the same in every count.")
    return said


def _grids(found: Comparison, verdicts: Sequence[Verdict]) -> Iterator[Grid]:
    conditions = [(c.name, _short(c.a), _short(c.b)) for c in found.conditions if not c.same]
    if conditions:
        yield Grid("made with", ("", "a", "b"), conditions)
    figures = (*found.metrics, *found.energies)
    yield Grid("per clip", ("", "a", "b", "change", "rise"), [_row(value) for value in figures])
    dropped = found.dropped_classes
    if dropped:
        yield Grid("recall that dropped", ("class", "a", "b", "change"), [_row(value)[:4] for value in dropped])
    layers = [_layer_row(layer) for layer in found.layers if not layer.same]
    if layers:
        yield Grid("layers that differ", LAYER_HEADINGS, layers)
    if verdicts:
        rows = [(verdict.bound, "kept" if verdict.kept else "MISSED", verdict.text) for verdict in verdicts]
        yield Grid("bounds", ("bound", "", "number against limit"), rows)


def _layer_row(layer: LayerDifference) -> tuple[str, ...]:
    """One line of a layer; what differs where no column shows it is named at its end. All is written out in the JSON."""
    if layer.only_in:
        return (layer.name, *[NONE] * (len(LAYER_HEADINGS) - 2), f"only in {layer.only_in}")
    spikes, rate = layer["spikes"], layer["firing_rate"]
    differ = [value.name for value in layer.values if not value.same]
    also = [] if set(differ) & set(LAYERS_SHOWN) else differ
    return (
        layer.name,
        NONE if layer.neurons is None else f"{layer.neurons:,}",
        _number(spikes.a),
        _number(spikes.b),
        *(_percent(layer[name]) for name in ("spikes", "syn_ops", "axon_out")),
        f"{rate.a:.2%} → {rate.b:.2%}",
        ", ".join(also) or NONE,
    )


def _row(value: Difference) -> tuple[str, ...]:
    a, b = (NONE if x is None else f"{'≥ ' if value.bound else ''}{_number(x)}" for x in (value.a, value.b))
    unit = f" ({value.unit})" if value.unit and value.unit not in ("per clip", "mJ per clip", "recall") else ""
    change = (
        NONE
        if value.change is None
        else "0"
        if value.change == 0
        else f"{value.change:+,{'.0f' if abs(value.change) >= 1e4 else '.4g'}}"
    )
    return (value.name + unit, a, b, change, _percent(value))


def _number(value: float | None) -> str:
    """Six digits; whole numbers where those are fewer than the number has."""
    return NONE if value is None else f"{value:,.0f}" if abs(value) >= 1e6 else f"{value:,.6g}"


def _percent(value: Difference) -> str:
    return NONE if value.rise is None or value.change == 0 else f"{value.rise:+.2%}"


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:16]}…"


def _rich(grid: Grid) -> Table:
    table = Table(title=grid.title, title_justify="left")
    for index, heading in enumerate(grid.headings):
        text = index == 0 or grid.title == "bounds"
        table.add_column(heading, justify="left" if text else "right", overflow="fold")
    for row in grid.rows:
        table.add_row(*row)
    return table


def _cell(text: str) -> str:
    """Text that Markdown shows as it is: names of clips and files are a user's."""
    for sign in "\\`*_{}[]<>#|~":
        text = text.replace(sign, f"\\{sign}" if sign not in "<>" else {"<": "&lt;", ">": "&gt;"}[sign])
    return " ".join(text.split())
