"""Compare two runs: their conditions, and the differences by figure, class and layer.

`a` is the reference and `b` the run compared with it. A change is b - a, and a rise is
(b - a) / a. Figures are per clip, as in run.json. A layer's counts are sums over the run there, so
they are divided by the number of clips.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mksgn.bench.check.counts import read_arrays
from mksgn.bench.energy_models import ADDRESSING
from mksgn.bench.manifest import Manifest, verified
from mksgn.bench.record import Layer, Record
from mksgn.bench.record_io import load
from mksgn.common.errors import BadInputError
from mksgn.deploy.run_files import MANIFEST_FILE, SPIKES_FILE
from mksgn.train.datasets.arrays import KINDS as ARRAY_KINDS

LAYER_COUNTS = (
    "spikes", "syn_ops", "effective_acs", "coincidences", "neuron_updates", "product_units", "axon_out", "spikes_in",
    "dense_ops",
)  # fmt: skip
LAYER_LEVELS = ("firing_rate", "max_membrane", "max_current", "silent_fraction", "saturated_fraction", "cores")
TOTALS = ("spikes", "syn_ops", "coincidences", "neuron_updates", "axon_out", "spikes_in", "host_macs")


@dataclass(frozen=True)
class Condition:
    """A condition of both runs, such as the model or the version of a package."""

    name: str
    a: str
    b: str

    @property
    def same(self) -> bool:
        return self.a == self.b


@dataclass(frozen=True)
class Difference:
    """One figure of both runs; None if a run does not have it."""

    name: str
    unit: str
    a: float | None
    b: float | None
    bound: bool = False  # a lower bound in one of the runs, since some events have no price

    @property
    def change(self) -> float | None:
        """Absolute change; None if either run lacks the figure."""
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def rise(self) -> float | None:
        """Change relative to the reference; None if the reference is 0 and the run is not."""
        if self.change is None or self.a is None:
            return None
        return 0.0 if self.change == 0 else self.change / self.a if self.a else None

    @property
    def same(self) -> bool:
        return self.a == self.b


@dataclass(frozen=True)
class LayerDifference:
    """The figures of one layer in both runs."""

    name: str
    values: tuple[Difference, ...]
    only_in: str | None = None  # "a" or "b", if the other run has no layer of that name
    neurons: int | None = None  # whose spike counts differ; None if unknown

    def __getitem__(self, name: str) -> Difference:
        return next(value for value in self.values if value.name == name)

    @property
    def same(self) -> bool:
        return self.only_in is None and not self.neurons and all(value.same for value in self.values)


@dataclass(frozen=True)
class Comparison:
    """Everything that was compared, equal figures included."""

    a: Record
    b: Record
    names: tuple[str, str]  # of the two folders or files
    conditions: tuple[Condition, ...]
    metrics: tuple[Difference, ...]
    energies: tuple[Difference, ...]  # mJ per clip, under every model that prices both runs
    classes: tuple[Difference, ...]  # recall
    layers: tuple[LayerDifference, ...]
    other_data: tuple[str, ...]  # differences of the data; empty if the clips are the same
    other_prices: dict[str, str]  # by model whose prices differ between the runs: the first difference; not in energies
    predictions: int | None = None  # clips whose predictions differ; None if unknown

    def __getitem__(self, name: str) -> Difference:
        return next(value for value in (*self.metrics, *self.energies) if value.name == name)

    @property
    def unit(self) -> str:
        """What a sample of both runs is called."""
        return unit_of(self.a, self.b)

    @property
    def dropped_classes(self) -> list[Difference]:
        """Classes with a lower recall than in the reference, largest drop first."""
        dropped = [recall for recall in self.classes if recall.change is not None and recall.change < 0]
        return sorted(dropped, key=lambda recall: recall.change or 0.0)


def unit_of(a: Record, b: Record) -> str:
    """Return what a sample of two runs is called: "sample" if they differ."""
    return a.unit if a.unit == b.unit else "sample"


def compare(
    a: Record,
    b: Record,
    *,
    names: tuple[str, str] = ("a", "b"),
    manifests: tuple[Manifest | None, Manifest | None] = (None, None),
    counts: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] | None = None,
) -> Comparison:
    """Compare two records.

    Args:
        a: The reference.
        b: The run to compare with it.
        names: What to call them.
        manifests: Their manifests, which state clips and predictions.
        counts: Spikes per neuron by population, if both are known.
    """
    first, second = manifests
    other_data = tuple(_other_data(a, b, first, second))
    other_prices = dict(_other_prices(a, b))
    predictions = None
    if first and second and not other_data:
        predictions = sum(x != y for x, y in zip(first.predictions, second.predictions, strict=True))
    return Comparison(
        a=a,
        b=b,
        names=names,
        conditions=tuple(_conditions(a, b)),
        metrics=tuple(_metrics(a, b)),
        energies=tuple(_energies(a, b, other_prices)),
        classes=tuple(_classes(a, b)),
        layers=tuple(_layers(a, b, counts)),
        other_data=other_data,
        other_prices=other_prices,
        predictions=predictions,
    )


def compare_folders(a: Path, b: Path) -> Comparison:
    """Compare two runs by their folders, or by their run.json files.

    Folders add the manifests' clips and predictions, and the spikes per neuron.

    Raises:
        BadInputError: A file cannot be read, or was changed since the run.
    """
    manifests = (_manifest(a), _manifest(b))
    spikes = (_counts(a), _counts(b))
    counts = None if spikes[0] is None or spikes[1] is None else (spikes[0], spikes[1])
    return compare(load(a), load(b), names=(str(a), str(b)), manifests=manifests, counts=counts)


def clip_names(path: Path) -> list[str] | None:
    """Return the names of a run's clips in order; None for a run.json without its folder."""
    manifest = _manifest(path)
    return None if manifest is None else manifest.data.clips


def _manifest(path: Path) -> Manifest | None:
    """Return the manifest of a run's folder; None for a run.json by itself."""
    if not path.is_dir():
        return None
    manifest = verified(path)
    if manifest is None:
        raise BadInputError(
            f"{path}: has no {MANIFEST_FILE}, so the run is not finished; continue it with mksgn-bench run --resume"
        )
    return manifest


def _counts(path: Path) -> dict[str, np.ndarray] | None:
    """Return the spikes per neuron by population; None for a run.json by itself."""
    file = path / SPIKES_FILE
    if not file.is_file():
        return None
    return {name.removeprefix("counts/"): x for name, x in read_arrays(file).items() if name.startswith("counts/")}


def _conditions(a: Record, b: Record) -> Iterator[Condition]:
    def facts(r: Record) -> dict[str, str]:
        return {
            "model": r.model.sha256,
            "data": r.data.source,
            "split": str(r.data.split),
            "clips": str(r.data.clips),
            "seed": str(r.seed),
            "backend": r.execution.backend,
            "precision": r.execution.precision,
            "steps": str(r.execution.steps),
            "decode": r.execution.decode,
            **{name: str(value) for name, value in r.execution.compiling.items()},
            "chip": "–" if r.placement is None else r.placement.chip,
            **{f"environment: {name}": value for name, value in r.environment.items()},
        }

    first, second = facts(a), facts(b)
    for name in dict.fromkeys((*first, *second)):
        yield Condition(name, first.get(name, "–"), second.get(name, "–"))


def _other_data(a: Record, b: Record, first: Manifest | None, second: Manifest | None) -> Iterator[str]:
    """Yield how the runs' data differ. Paths of data sets are ignored if manifests name the clips.

    Arrays have no names: they are the same if their values are, whether from a file or from memory.
    """
    named = first is not None and second is not None
    kinds = [r.data.source.partition(":")[0] if named else r.data.source for r in (a, b)]
    arrays = named and set(kinds) <= {*ARRAY_KINDS, "arrays", "samples"}
    if kinds[0] != kinds[1] and not arrays:
        yield f"data {a.data.source} and {b.data.source}"
    elif kinds[0] == "synthetic" and a.seed != b.seed:
        yield f"synthetic clips of seed {a.seed} and {b.seed}"
    if a.data.split != b.data.split:
        yield f"split {a.data.split} and {b.data.split}"
    if a.data.clips != b.data.clips:
        yield f"{a.data.clips} and {b.data.clips} {unit_of(a, b)}s"
    elif first is not None and second is not None:
        different = sum(x != y for x, y in zip(first.data.clips, second.data.clips, strict=True))
        changed = sum(x != y for x, y in zip(first.data.digests, second.data.digests, strict=True)) if arrays else 0
        if changed:
            yield f"{changed} of {a.data.clips} samples have different values"
        elif different:
            yield f"{different} of {a.data.clips} {unit_of(a, b)}s have different names or another order"
        elif (first.data.labels, first.data.classes) != (second.data.labels, second.data.classes):
            yield "different labels or classes"


def _metrics(a: Record, b: Record) -> Iterator[Difference]:
    def difference(name: str, unit: str, value: Callable[[Record], float | None]) -> Difference:
        return Difference(name, unit, value(a), value(b))

    yield difference("accuracy", "top-1", lambda r: r.accuracy.top1 if r.accuracy else None)
    for name in TOTALS:
        yield Difference(name, f"per {unit_of(a, b)}", getattr(a.totals, name), getattr(b.totals, name))
    latency = "steps, first input to last output"
    yield difference("latency", latency, lambda r: r.execution.steps + r.execution.latency_steps)
    yield difference("cores", "", lambda r: r.placement.cores if r.placement else None)


def _other_prices(a: Record, b: Record) -> Iterator[tuple[str, str]]:
    """Yield the models whose energies in the two runs are not comparable, and why.

    If a record is of a version that kept no prices, the sources have to be the same, and memory has to be
    priced in both or in neither; it had no price then.
    """
    entries = {entry.model: entry for entry in b.energy}
    for entry in a.energy:
        other = entries.get(entry.model)
        if other is None or not (entry.terms or other.terms):
            continue
        difference = None
        if entry.prices is not None and other.prices is not None:
            difference = _first_difference(entry.prices.model_dump(), other.prices.model_dump())
        elif one_sided := sorted(({*entry.terms} ^ {*other.terms}) & {"memory", ADDRESSING}):
            difference = f"{one_sided[0]} priced in one of them"
        if difference is not None or entry.source != other.source:
            yield entry.model, difference or "another source"


def _first_difference(one: dict[str, Any], other: dict[str, Any]) -> str | None:
    """Name the first field of nested prices that differs, with both values; None if there is none."""
    for name in dict.fromkeys((*one, *other)):
        first, second = one.get(name), other.get(name)
        if first == second:
            continue
        if isinstance(first, dict) and isinstance(second, dict):
            return _first_difference(first, second)
        return f"{name} {first} and {second}"
    return None


def _energies(a: Record, b: Record, other_prices: dict[str, str]) -> Iterator[Difference]:
    entries = {entry.model: entry for entry in b.energy}
    for entry in a.energy:
        other = entries.get(entry.model)
        if other is not None and (entry.terms or other.terms) and entry.model not in other_prices:
            bound = entry.total_mJ is None or other.total_mJ is None
            yield Difference(
                f"energy, {entry.model}", f"mJ per {unit_of(a, b)}", entry.priced_mJ, other.priced_mJ, bound
            )


def _classes(a: Record, b: Record) -> Iterator[Difference]:
    first, second = ({} if r.accuracy is None else r.accuracy.per_class for r in (a, b))
    for name in dict.fromkeys((*first, *second)):
        yield Difference(name, "recall", first.get(name), second.get(name))


def _layers(
    a: Record, b: Record, counts: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] | None
) -> Iterator[LayerDifference]:
    first, second = ({layer.name: layer for layer in r.layers} for r in (a, b))
    for name in dict.fromkeys((*first, *second)):
        one, two = first.get(name), second.get(name)
        values = []
        for field in (*LAYER_COUNTS, *LAYER_LEVELS):
            clips = (a.data.clips, b.data.clips) if field in LAYER_COUNTS else (1, 1)
            unit = f"per {unit_of(a, b)}" if field in LAYER_COUNTS else ""
            values.append(Difference(field, unit, _value(one, field, clips[0]), _value(two, field, clips[1])))
        only = "b" if one is None else "a" if two is None else None
        yield LayerDifference(name, tuple(values), only, None if only or counts is None else _neurons(name, *counts))


def _value(layer: Layer | None, field: str, clips: int) -> float | None:
    # dividing by 1 would turn a count into a float
    value = None if layer is None else getattr(layer, field)
    return value / clips if value is not None and clips != 1 else value


def _neurons(name: str, first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> int | None:
    """Count the neurons whose spike counts differ; a population that never fired has no counts."""
    one, two = (counts.get(name, np.zeros((), dtype=np.int64)) for counts in (first, second))
    return None if one.ndim and two.ndim and one.shape != two.shape else int((one != two).sum())
