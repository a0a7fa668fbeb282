"""Bounds on a comparison, for continuous integration: how much worse than its reference a run may be.

If a bound is missed, either the network must be fixed or the new run accepted as the reference; a person decides.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from mksgn.bench.choices import PAPER_MODEL
from mksgn.bench.compare.runs import Comparison, Difference
from mksgn.bench.errors import BoundMissedError
from mksgn.bench.record import EnergyEntry, Record
from mksgn.common.errors import BadInputError

ROUNDING = 1e-9  # a difference that equals a decimal limit up to float rounding is within it
NEW_TOTALS = ("hops", "syn_ops_by_kind", "memory_accesses", "addressing")  # records of earlier versions have none
MAXIMA = ("max_membrane", "max_current")  # float sums in a float run, whose last digits depend on the order


@dataclass(frozen=True)
class Bounds:
    """Allowed changes as fractions: a drop on the accuracy scale 0 … 1, and rises relative to the reference.

    A drop of 0.005 allows an accuracy of 0.985 after 0.990. A rise of 0.05 allows 105 after 100, and a rise of 0 allows
    none. None sets no bound.
    """

    max_drop_accuracy: float | None = None
    max_rise_energy: float | None = None  # under energy_model
    max_rise_spikes: float | None = None
    max_rise_syn_ops: float | None = None
    max_rise_latency: float | None = None  # of the time steps from a clip's first input to its first output
    max_rise_cores: float | None = None
    identical: bool = False  # every count of every layer, every prediction
    energy_model: str = PAPER_MODEL

    def __post_init__(self) -> None:
        for name, value in self.limits().items():
            if not 0 <= value < float("inf"):
                raise BadInputError(f"{_option(name)} is {value}; it must be a fraction of 0 or more, such as 0.05")

    def limits(self) -> dict[str, float]:
        """Return the bounds that are set, by name."""
        return {name: value for name, value in vars(self).items() if name.startswith("max_") and value is not None}

    def __bool__(self) -> bool:
        return self.identical or bool(self.limits())


@dataclass(frozen=True)
class Verdict:
    """The outcome of one bound; `text` states the number and its limit."""

    bound: str
    kept: bool
    text: str


def evaluate_bounds(
    comparison: Comparison, bounds: Bounds, allow_different_data: bool = False, allow_different_prices: bool = False
) -> list[Verdict]:
    """Evaluate each bound that is set, in the order of Bounds.

    Args:
        comparison: The runs.
        bounds: The allowed changes.
        allow_different_data: Evaluate them even if the runs have different clips.
        allow_different_prices: Leave out energies under one model at different prices.

    Raises:
        BadInputError: The runs have energies under one model at different prices, or a bound cannot be evaluated: different
            clips, no labels, no placement, or an energy that is only a lower bound in one of the runs, since a rise of the
            events without a price would be missed.
    """
    if comparison.other_prices and not allow_different_prices:
        model, difference = next(iter(comparison.other_prices.items()))
        more = f", and {len(comparison.other_prices) - 1} more models" if len(comparison.other_prices) > 1 else ""
        raise BadInputError(
            f"{' and '.join(comparison.names)} have energies under {model} at different prices ({difference}){more}; run "
            "both with the same version and files of prices, or add --allow-different-prices to leave these energies out"
        )
    if bounds and comparison.other_data and not allow_different_data:
        raise BadInputError(
            f"{' and '.join(comparison.names)} ran different {comparison.unit}s ({'; '.join(comparison.other_data)}), so no "
            f"bound can be evaluated; run both on the same {comparison.unit}s, or add --allow-different-data"
        )
    verdicts = []
    for name, limit in bounds.limits().items():
        if name == "max_drop_accuracy":
            verdicts.append(_drop(comparison, limit))
        else:
            verdicts.append(_rise(name, _figure(comparison, name, bounds.energy_model), limit))
    if bounds.identical:
        differences = list(_not_identical(comparison))
        text = "; ".join(differences[:3]) + (f"; and {len(differences) - 3} more" if len(differences) > 3 else "")
        verdicts.append(Verdict("identical", not differences, text or _identical(comparison)))
    return verdicts


def raise_missed(comparison: Comparison, verdicts: list[Verdict]) -> None:
    """Raise BoundMissedError (exit code 5) with every missed bound, if there is one."""
    missed = [f"{verdict.bound}: {verdict.text}" for verdict in verdicts if not verdict.kept]
    if missed:
        raise BoundMissedError(f"{comparison.names[1]} compared with {comparison.names[0]}", missed)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _identical(comparison: Comparison) -> str:
    if comparison.predictions is None:
        return "all counts are equal; predictions and spikes per neuron are unknown without the runs' folders"
    return "all counts, spikes per neuron and predictions are equal"


def _drop(comparison: Comparison, limit: float) -> Verdict:
    accuracy = comparison["accuracy"]
    if accuracy.a is None or accuracy.b is None:
        name = comparison.names[accuracy.a is not None]
        raise BadInputError(f"{name}: no accuracy, since its {comparison.unit}s have no labels; omit that bound")
    drop = accuracy.a - accuracy.b
    kept = drop <= limit + ROUNDING
    text = f"{accuracy.a:.4f} to {accuracy.b:.4f}, a drop of {drop:.4f}; {limit:g} allowed"
    worst = ", ".join(f"{recall.name} {recall.a:.2f} to {recall.b:.2f}" for recall in comparison.dropped_classes[:3])
    if worst and not kept:
        text += f" (most in {worst})"
    return Verdict(_option("max_drop_accuracy"), kept, text)


def _figure(comparison: Comparison, name: str, model: str) -> Difference:
    figure = name.removeprefix("max_rise_")
    if figure == "energy":
        return _energy(comparison, model)
    if figure == "cores":
        chips = [None if r.placement is None else r.placement.chip for r in (comparison.a, comparison.b)]
        if None in chips or chips[0] != chips[1]:
            raise BadInputError(
                f"cores: placed on {chips[0] or 'no chip'} and {chips[1] or 'no chip'}; place both on the same chip, "
                "or omit that bound"
            )
    return comparison[figure]


def _energy(comparison: Comparison, model: str) -> Difference:
    first, second = (
        _entry(record, model, name) for record, name in zip((comparison.a, comparison.b), comparison.names, strict=True)
    )
    for entry, name in zip((first, second), comparison.names, strict=True):
        if entry.total_mJ is None:
            raise BadInputError(
                f"{name}: {model} gives only a lower bound, without {', '.join(entry.incomplete)}, so a rise of these "
                "would be missed; bound --max-rise-syn-ops, or the energy under a model with a total"
            )
    if model in comparison.other_prices:
        difference = comparison.other_prices[model]
        raise BadInputError(
            f"{model} has different prices in the two runs ({difference}); price both with the same file"
        )
    return comparison[f"energy, {model}"]


def _entry(record: Record, model: str, name: str) -> EnergyEntry:
    entries = {entry.model: entry for entry in record.energy}
    if model not in entries:
        raise BadInputError(f"{name}: not priced with {model}; its energy models are {', '.join(entries)}")
    return entries[model]


def _rise(name: str, figure: Difference, limit: float) -> Verdict:
    if figure.a is None or figure.b is None:
        raise BadInputError(f"{figure.name}: not counted in both runs; omit {_option(name)}")
    kept = figure.b <= figure.a * (1 + limit) + ROUNDING * abs(figure.a)
    rise = "from zero" if figure.rise is None else f"{figure.rise:+.2%}"
    unit = f" {figure.unit}" if figure.unit else ""
    text = f"{figure.a:,.6g} to {figure.b:,.6g}{unit}, {rise}; {limit:+.2%} allowed"
    return Verdict(_option(name), kept, text)


def _not_identical(comparison: Comparison) -> Iterator[str]:
    """Yield every difference other than in times, files and environment."""
    a, b = comparison.a, comparison.b
    if comparison.predictions:
        yield f"{comparison.predictions} predictions differ"
    elif a.accuracy != b.accuracy:
        yield "the confusion matrix differs"
    inexact = "float" in (a.execution.precision, b.execution.precision)
    for layer in comparison.layers:
        if layer.only_in:
            yield f"{layer.name} is only in {comparison.names[layer.only_in == 'b']}"
            continue
        for value in layer.values:
            if not value.same and not (inexact and value.name in MAXIMA):
                yield f"{layer.name}: {value.name} {_number(value.a)} and {_number(value.b)}"
        if layer.neurons:
            yield f"{layer.name}: spike counts of {layer.neurons} neurons differ"
    for name in type(a.totals).model_fields:
        first, second = getattr(a.totals, name), getattr(b.totals, name)
        if name in NEW_TOTALS and None in (first, second):
            continue
        if first != second:
            yield f"totals.{name} {_number(first)} and {_number(second)}"


def _number(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_number(part)}" for name, part in value.items())
    if isinstance(value, BaseModel):
        return _number(value.model_dump())
    return "–" if value is None else f"{value:,.10g}"
