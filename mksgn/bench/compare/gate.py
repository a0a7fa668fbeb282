"""Bounds on a comparison: how much worse than its reference a run may be. For continuous integration.

The remedy of a missed bound is a human's: mend the network, or take the new run as the reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mksgn.bench.compare.runs import Comparison, Difference
from mksgn.bench.errors import BoundMissedError
from mksgn.bench.record import EnergyEntry, Record
from mksgn.bench.theory import PAPER_MODEL
from mksgn.common.errors import BadInputError

ROUNDING = 1e-9  # a limit given in decimals is met by a difference that is equal to it but for float rounding
MAXIMA = ("max_membrane", "max_current")  # sums of floats in a float run: their last digits depend on the order


@dataclass(frozen=True)
class Bounds:
    """None: no bound. All are fractions: of the accuracy scale 0 … 1 for the drop, of the reference for the rises.

    0.005 allows an accuracy of 0.985 after 0.990; a rise of 0.05 allows 105 after 100. A rise of 0 allows no rise.
    """

    max_drop_accuracy: float | None = None
    max_rise_energy: float | None = None  # under energy_model
    max_rise_spikes: float | None = None
    max_rise_syn_ops: float | None = None
    max_rise_latency: float | None = None  # of the steps from a clip's first input to its last output
    max_rise_cores: float | None = None
    identical: bool = False  # every count of every layer, every prediction
    energy_model: str = PAPER_MODEL

    def __post_init__(self) -> None:
        for name, value in self.limits().items():
            if not 0 <= value < float("inf"):
                raise BadInputError(
                    f"--{name.replace('_', '-')} is {value}; it must be a fraction of 0 or more, as 0.05"
                )

    def limits(self) -> dict[str, float]:
        """The bounds that are set, by name."""
        return {name: value for name, value in vars(self).items() if name.startswith("max_") and value is not None}

    def __bool__(self) -> bool:
        return self.identical or bool(self.limits())


@dataclass(frozen=True)
class Verdict:
    """One bound and whether it was kept; `text` holds the number against the limit."""

    bound: str
    kept: bool
    text: str


def judge(found: Comparison, bounds: Bounds, *, allow_different_data: bool = False) -> list[Verdict]:
    """A verdict for each bound that is set, in the order of Bounds.

    Raises BadInputError where a bound cannot be judged: other clips, no labels, no placement, an energy that is only a
    lower bound in one of the runs (what has no price could have risen unseen).
    """
    if bounds and found.other_data and not allow_different_data:
        raise BadInputError(
            f"{found.names[0]} and {found.names[1]} ran other clips ({'; '.join(found.other_data)}): no bound can be judged; "
            "run both on the same clips, or add --allow-different-data"
        )
    verdicts = []
    for name, limit in bounds.limits().items():
        if name == "max_drop_accuracy":
            verdicts.append(_drop(found, limit))
        else:
            verdicts.append(_rise(name, _figure(found, name, bounds.energy_model), limit))
    if bounds.identical:
        differences = list(_not_identical(found))
        shown = "; ".join(differences[:3]) + (f"; and {len(differences) - 3} more" if len(differences) > 3 else "")
        verdicts.append(Verdict("identical", not differences, shown or _same(found)))
    return verdicts


def _same(found: Comparison) -> str:
    if found.predictions is None:
        return "every count is the same; predictions and spikes per neuron are not known without the runs' folders"
    return "every count, every neuron and every prediction is the same"


def raise_missed(found: Comparison, verdicts: list[Verdict]) -> None:
    """Raises BoundMissedError (exit code 5), which lists every missed bound."""
    missed = [f"{verdict.bound}: {verdict.text}" for verdict in verdicts if not verdict.kept]
    if missed:
        raise BoundMissedError(f"{found.names[1]} against {found.names[0]}", missed)


def _drop(found: Comparison, limit: float) -> Verdict:
    accuracy = found["accuracy"]
    if accuracy.a is None or accuracy.b is None:
        raise BadInputError(
            f"{found.names[accuracy.a is not None]}: no accuracy, as its clips have no labels; omit that bound"
        )
    drop = accuracy.a - accuracy.b
    text = f"{accuracy.a:.4f} to {accuracy.b:.4f}, a drop of {drop:.4f} against {limit:g} allowed"
    worst = [f"{each.name} {each.a:.2f} to {each.b:.2f}" for each in found.dropped_classes[:3]]
    kept = drop <= limit + ROUNDING
    return Verdict("--max-drop-accuracy", kept, text + ("" if kept or not worst else f" (most in {', '.join(worst)})"))


def _figure(found: Comparison, name: str, model: str) -> Difference:
    what = name.removeprefix("max_rise_")
    if what == "energy":
        return _energy(found, model)
    if what == "cores":
        chips = [None if r.placement is None else r.placement.chip for r in (found.a, found.b)]
        if None in chips or chips[0] != chips[1]:
            raise BadInputError(
                f"cores: placed on {chips[0] or 'no chip'} and {chips[1] or 'no chip'}; place both on one chip, or omit that bound"
            )
    return found[what]


def _energy(found: Comparison, model: str) -> Difference:
    entries = [_entry(record, model, name) for record, name in zip((found.a, found.b), found.names, strict=True)]
    for entry, name in zip(entries, found.names, strict=True):
        if entry.total_mJ is None:
            raise BadInputError(
                f"{name}: {model} gives only a lower bound, without {', '.join(entry.unpriced)}, whose rise would go unseen; "
                "bound --max-rise-syn-ops, or the energy under a model with a total"
            )
    for what in ("source", "excludes"):
        if getattr(entries[0], what) != getattr(entries[1], what):
            raise BadInputError(f"{model} is not the same model in both runs: other {what}; price both with one file")
    return found[f"energy, {model}"]


def _entry(record: Record, model: str, name: str) -> EnergyEntry:
    for entry in record.energy:
        if entry.model == model:
            return entry
    known = ", ".join(entry.model for entry in record.energy)
    raise BadInputError(f"{name}: was not priced with {model}; its energy models are {known}")


def _rise(name: str, figure: Difference, limit: float) -> Verdict:
    if figure.a is None or figure.b is None:
        raise BadInputError(f"{figure.name}: not counted in both runs; omit --{name.replace('_', '-')}")
    kept = figure.b <= figure.a * (1 + limit) + ROUNDING * abs(figure.a)
    rise = "from nothing" if figure.rise is None else f"{figure.rise:+.2%}"
    unit = f" {figure.unit}" if figure.unit else ""
    text = f"{figure.a:,.6g} to {figure.b:,.6g}{unit}, {rise} against {limit:+.2%} allowed"
    return Verdict(f"--{name.replace('_', '-')}", kept, text)


def _not_identical(found: Comparison) -> Iterator[str]:
    """What differs although only times, files and environment may."""
    if found.predictions:
        yield f"{found.predictions} predictions differ"
    elif found.a.accuracy != found.b.accuracy:
        yield "the confusion differs"
    inexact = "float" in (found.a.execution.precision, found.b.execution.precision)
    for layer in found.layers:
        if layer.only_in:
            yield f"{layer.name} is only in {found.names[layer.only_in == 'b']}"
            continue
        for value in layer.values:
            if not value.same and not (inexact and value.name in MAXIMA):
                yield f"{layer.name}: {value.name} {_number(value.a)} and {_number(value.b)}"
        if layer.neurons:
            yield f"{layer.name}: {layer.neurons} neurons fired another number of times"
    for name in type(found.a.totals).model_fields:
        ours, theirs = getattr(found.a.totals, name), getattr(found.b.totals, name)
        if ours != theirs:
            yield f"totals.{name} {_number(ours)} and {_number(theirs)}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.10g}"
