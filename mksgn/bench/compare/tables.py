"""Format a comparison as tables for the terminal, as Markdown for a pull request, and as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from mksgn.bench.compare.gate import Verdict
from mksgn.bench.compare.runs import Comparison, Difference, LayerDifference
from mksgn.common.tables import table

SCHEMA = "mksgn.compare/1"
LAYER_COLUMNS = ("spikes", "syn_ops", "axon_out")
LAYER_HEADINGS = (
    "layer", "neurons that differ", "spikes, a", "spikes, b", "spikes", "syn_ops", "axon_out", "firing rate", "also",
)  # fmt: skip
NONE = "–"


@dataclass(frozen=True)
class Grid:
    """A table in no particular format; its first column is left-aligned."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def tables(comparison: Comparison, verdicts: Sequence[Verdict] = ()) -> list[Table]:
    """Return tables for the terminal: conditions, figures, classes and layers that differ, and bounds."""
    return [
        table(grid.title, grid.headings, grid.rows, left=grid.headings if grid.title == "bounds" else ())
        for grid in _grids(comparison, verdicts)
    ]


def is_markdown(head: str) -> bool:
    """Return whether a file begins as `markdown` begins one."""
    first, _, _ = head.partition("\n")
    return first.startswith("### ") and " compared with " in first


def markdown(comparison: Comparison, verdicts: Sequence[Verdict] = ()) -> str:
    """Return the same tables as Markdown; long ones are folded."""
    parts = [f"### {_cell(comparison.names[1])} compared with {_cell(comparison.names[0])}", *sentences(comparison)]
    for grid in _grids(comparison, verdicts):
        rows = [grid.headings, tuple("---" if i == 0 else "---:" for i in range(len(grid.headings))), *grid.rows]
        lines = "\n".join("| " + " | ".join(_cell(text) for text in row) + " |" for row in rows)
        folded = len(grid.rows) > 8 and not grid.title.startswith("bounds")
        title = _cell(grid.title)
        parts.append(
            f"<details><summary>{title}</summary>\n\n{lines}\n\n</details>" if folded else f"**{title}**\n\n{lines}"
        )
    return "\n\n".join(parts) + "\n"


def document(comparison: Comparison, verdicts: Sequence[Verdict] = ()) -> dict[str, Any]:
    """Return everything that was compared, equal figures included."""

    def figure(value: Difference) -> dict[str, Any]:
        return {**asdict(value), "change": value.change, "rise": value.rise}

    return {
        "schema": SCHEMA,
        "a": comparison.names[0],
        "b": comparison.names[1],
        "other_data": list(comparison.other_data),
        "other_prices": comparison.other_prices,
        "conditions": [{**asdict(condition), "same": condition.same} for condition in comparison.conditions],
        "predictions_that_differ": comparison.predictions,
        "metrics": [figure(value) for value in comparison.metrics],
        "energies": [figure(value) for value in comparison.energies],
        "classes": [figure(value) for value in comparison.classes],
        "layers": [
            {
                "name": layer.name,
                "only_in": layer.only_in,
                "neurons_that_differ": layer.neurons,
                "values": [figure(value) for value in layer.values],
            }
            for layer in comparison.layers
        ],
        "bounds": [asdict(verdict) for verdict in verdicts],
    }


def sentences(comparison: Comparison) -> list[str]:
    """Summarise what no table contains: different data, predictions that differ, and equal layers."""
    lines = []
    if comparison.other_data:
        lines.append(
            f"The runs have different {comparison.unit}s ({'; '.join(comparison.other_data)}), so their figures are not "
            "comparable."
        )
    lines += [f"Left out: energy, {model} (different prices: {why})." for model, why in comparison.other_prices.items()]
    if comparison.predictions is not None:
        lines.append(
            f"The predictions of {comparison.predictions} of {comparison.a.data.clips} {comparison.unit}s differ."
        )
    same = sum(layer.same for layer in comparison.layers)
    lines.append(f"{same} of {len(comparison.layers)} layers are equal in every count.")
    return lines


def _grids(comparison: Comparison, verdicts: Sequence[Verdict]) -> Iterator[Grid]:
    runs = f"a: {comparison.names[0]}, b: {comparison.names[1]}"
    conditions = [(c.name, _short(c.a), _short(c.b)) for c in comparison.conditions if not c.same]
    if conditions:
        yield Grid(f"conditions that differ ({runs})", ("condition", "a", "b"), conditions)
    figures = (*comparison.metrics, *comparison.energies)
    yield Grid(
        f"per {comparison.unit} ({runs})", ("figure", "a", "b", "change", "rise"), [_row(value) for value in figures]
    )
    dropped = comparison.dropped_classes
    if dropped:
        yield Grid("recall that dropped", ("class", "a", "b", "change"), [_row(value)[:4] for value in dropped])
    layers = [_layer_row(layer) for layer in comparison.layers if not layer.same]
    if layers:
        yield Grid("layers that differ", LAYER_HEADINGS, layers)
    if verdicts:
        rows = [(verdict.bound, "kept" if verdict.kept else "MISSED", verdict.text) for verdict in verdicts]
        yield Grid("bounds", ("bound", "verdict", "number against limit"), rows)


def _layer_row(layer: LayerDifference) -> tuple[str, ...]:
    """Return a layer's row. Its last cell names figures that differ if no column shows a difference."""
    if layer.only_in:
        return (layer.name, *[NONE] * (len(LAYER_HEADINGS) - 2), f"only in {layer.only_in}")
    spikes, rate = layer["spikes"], layer["firing_rate"]
    differ = [value.name for value in layer.values if not value.same]
    also = [] if set(differ) & set(LAYER_COLUMNS) else differ
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
    unit = value.unit.partition(" per ")[0] if value.unit and not value.unit.startswith(("per ", "recall")) else ""
    change = NONE if value.change is None else "0"
    if value.change:
        change = f"{value.change:+,{'.0f' if abs(value.change) >= 1e4 else '.4g'}}"
    return (f"{value.name} ({unit})" if unit else value.name, a, b, change, _percent(value))


def _number(value: float | None) -> str:
    """Return a number with six digits, or as a whole number if it has more."""
    return NONE if value is None else f"{value:,.0f}" if abs(value) >= 1e6 else f"{value:,.6g}"


def _percent(value: Difference) -> str:
    return NONE if value.rise is None or value.change == 0 else f"{value.rise:+.2%}"


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:16]}…"


def _cell(text: str) -> str:
    """Escape names that users chose, such as those of clips and files."""
    for sign in "\\`*_{}[]<>#|~":
        text = text.replace(sign, f"\\{sign}" if sign not in "<>" else {"<": "&lt;", ">": "&gt;"}[sign])
    return " ".join(text.split())
