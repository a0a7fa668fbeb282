"""Compare a chip's counters with a record's by population, and its measured energy with every energy model."""

# ruff: noqa: N815 - units keep their own spelling: mJ
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import log

from mksgn.bench.chip_counts.counts import COUNTERS, ChipCounts, Readings, clip_digest
from mksgn.bench.energy_models import PJ_IN_MJ
from mksgn.bench.record import Layer, Record
from mksgn.common.errors import BadInputError


@dataclass(frozen=True)
class Row:
    """One counter of one population, or of all of them ("totals"), summed over all clips."""

    population: str
    counter: str  # as the chip's read-out names it
    record: int
    chip: float
    note: str = ""  # the known counting convention that explains the difference exactly

    @property
    def difference(self) -> float:
        return self.chip - self.record

    @property
    def ratio(self) -> float | None:
        return self.chip / self.record if self.record else None

    @property
    def same(self) -> bool:
        """Whether the counts are equal as whole numbers; a mean per clip is rounded to events of the run."""
        return round(self.chip) == self.record


@dataclass(frozen=True)
class EnergyRow:
    """The measured energy and the same events priced by one energy model, in mJ per clip."""

    model: str
    record_mJ: float  # without the host's multiply-accumulates, unless the measurement includes them
    bound: bool  # record_mJ is a lower bound: some events have no price
    measured_mJ: float
    part: str  # of the measured energy: "total", or "dynamic" if the model excludes static power
    left_out: tuple[str, ...]  # kinds of event without a price, or excluded

    @property
    def ratio(self) -> float:
        """Measured energy relative to the priced one."""
        return self.measured_mJ / self.record_mJ


@dataclass(frozen=True)
class ChipComparison:
    """A chip's counters and energy compared with those of a run."""

    rows: tuple[Row, ...]
    first: Row | None  # spikes of the first population, in network order, that differ: where to look
    missing: tuple[str, ...]  # populations on the chip that the counts file does not list
    on_host: tuple[str, ...]  # populations computed on the host
    energies: tuple[EnergyRow, ...]
    verdict: str
    unit: str  # what a sample of the run is called


def compare_chip(record: Record, chip: ChipCounts, *, clips: Sequence[str] | None = None) -> ChipComparison:
    """Compare a chip's counters and energy with a run's record.

    Args:
        record: The run, on any backend.
        chip: What was read from the chip.
        clips: Names of the run's clips, from its manifest; None skips the comparison of their hash.

    Raises:
        BadInputError: The chip ran another model or other clips, or the file names a population that the
            network does not have or that the host computes.
    """
    _check_same_run(record, chip, clips)
    layers = {layer.name: layer for layer in record.layers}
    for name in chip.populations:
        if name not in layers:
            close = get_close_matches(name, layers, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"its populations are {', '.join(layers)}"
            raise BadInputError(f"{chip.name}: the network has no population {name!r}; {hint}")
        if layers[name].place == "host":
            raise BadInputError(
                f"{chip.name}: {name!r} is computed on the host in the record; remove it from the counts"
            )
    rows = tuple(_rows(record, chip))
    energies = tuple(_energies(record, chip))
    return ChipComparison(
        rows=rows,
        first=next(
            (row for row in rows if row.counter == "spikes" and row.population in layers and not row.same), None
        ),
        missing=tuple(
            layer.name
            for layer in record.layers
            if layer.place == "chip" and not chip.populations.get(layer.name, Readings()).given()
        ),
        on_host=tuple(layer.name for layer in record.layers if layer.place == "host"),
        energies=energies,
        verdict=_verdict(record, energies, chip),
        unit=record.unit,
    )


def _check_same_run(record: Record, chip: ChipCounts, clips: Sequence[str] | None) -> None:
    """Raise BadInputError, with the remedy, unless the chip ran the record's model on the record's clips."""

    def require(condition: bool, difference: str, remedy: str) -> None:
        if not condition:
            raise BadInputError(f"{chip.name}: {difference}; {remedy}")

    units = f"{record.unit}s"
    again = f"run the record's {units} on the chip, in the manifest's order, or run mksgn-bench on the chip's {units}"
    require(
        chip.model_sha256 in (None, record.model.sha256),
        f"the chip ran model {(chip.model_sha256 or '')[:16]}…, the record {record.model.sha256[:16]}…",
        "put the record's model.nir on the chip, or run mksgn-bench with the chip's",
    )
    limit = f"mksgn-bench run --limit {chip.clips.count} runs as many; compare with that run, or {again}"
    require(
        chip.clips.count == record.data.clips,
        f"{chip.clips.count} {units} on the chip, {record.data.clips} in the record",
        limit if chip.clips.count < record.data.clips else again,
    )
    kinds = [None if s is None else s.partition(":")[0] for s in (chip.clips.source, record.data.source)]
    require(
        kinds[0] in (None, kinds[1]),
        f"{units} of {chip.clips.source} on the chip, of {record.data.source} in the record",
        again,
    )
    require(
        chip.clips.split in (None, record.data.split),
        f"split {chip.clips.split} on the chip, {record.data.split} in the record",
        again,
    )
    require(
        chip.clips.names_sha256 is None or clips is None or chip.clips.names_sha256 == clip_digest(clips),
        f"other {units} than the record's, or the same in another order (names_sha256)",
        again,
    )


def _rows(record: Record, chip: ChipCounts) -> Iterator[Row]:
    """Compare counters in network order, which is the record's; the totals come last."""
    on_chip = [layer for layer in record.layers if layer.place == "chip"]
    for layer in on_chip:
        for counter, value in chip.populations.get(layer.name, Readings()).given().items():
            expected = getattr(layer, COUNTERS[counter])
            if expected is not None:
                counted = chip.of_the_run(value)
                yield Row(layer.name, counter, expected, counted, _note(layer, counter, expected, counted))
    for counter, value in chip.totals.given().items():
        expected = sum(getattr(layer, COUNTERS[counter]) or 0 for layer in on_chip)
        yield Row("totals", counter, expected, chip.of_the_run(value))


def _note(layer: Layer, counter: str, expected: int, counted: float) -> str:
    """Name the known counting convention that explains a difference exactly; empty if none does."""
    whole = round(counted)
    difference = whole - expected
    if not difference:
        return ""
    if counter == "dendrite_updates":
        if layer.product_units and difference == -layer.product_units:
            return "equal without the record's product units: this chip has none, or counts them elsewhere"
        if expected and whole >= expected and whole % expected == 0:
            return f"{whole // expected} times the record's: passes of the neuron program, or steps outside the window"
    if counter == "syn_ops" and whole == layer.effective_acs:
        return "equal to the record's effective_acs: this chip does not store synapses of weight 0"
    if counter == "axon_out":
        if layer.coincidences and difference == -layer.coincidences:
            return "equal without the record's coincidences: product units send no messages on this chip"
        if whole == layer.spikes:
            return "equal to the record's spikes: every spike counted once, however many cores it is sent to"
    return ""


def _energies(record: Record, chip: ChipCounts) -> Iterator[EnergyRow]:
    """Price the events that were measured: what one side lacks is left out of the other."""
    if chip.energy is None:
        return
    dynamic = chip.energy.split[1]
    for entry in record.energy:
        host = 0.0 if chip.energy.includes_host else entry.terms.get("host_macs", 0.0)
        priced = entry.priced_mJ - host
        if priced <= 0:
            continue
        on_neither = set() if chip.energy.includes_host else {"host_macs"}
        part, measured = "total", chip.energy.total_mJ
        if dynamic is not None and "static_power" in (*entry.unpriced, *entry.excludes):
            part, measured = "dynamic", dynamic
            on_neither.add("static_power")
        unpriced = [event for event in entry.incomplete if event not in on_neither]
        left_out = [event for event in dict.fromkeys((*unpriced, *entry.excludes)) if event not in on_neither]
        yield EnergyRow(entry.model, priced, bool(unpriced), measured, part, tuple(left_out))


def _verdict(record: Record, energies: Sequence[EnergyRow], chip: ChipCounts) -> str:
    """State which energy model is closest, its ratio and omissions, and which models exceed the measurement."""
    possible = [row for row in energies if row.measured_mJ > 0]
    if not possible:
        return "No energy was measured." if chip.energy is None else "No energy model prices this run."
    nearest = min(possible, key=lambda row: abs(log(row.ratio)))
    text = (
        f"The closest energy model is {nearest.model}: {'at least ' if nearest.bound else ''}{nearest.record_mJ:.3g} "
        f"mJ per {record.unit}, {nearest.measured_mJ:.3g} mJ measured ({nearest.part}), a ratio of {nearest.ratio:.3g}. "
        f"It leaves out {', '.join(nearest.left_out) or 'nothing'}."
    )
    above = [row.model for row in possible if row.record_mJ > row.measured_mJ]
    if above:
        text += f" Higher than measured, so not this chip's prices: {', '.join(above)}."
    static, dynamic = chip.energy.split if chip.energy else (None, None)
    if dynamic and record.totals.syn_ops:
        most = dynamic / PJ_IN_MJ / record.totals.syn_ops
        text += f" A synaptic operation cost at most {most:.3g} pJ: all dynamic energy divided by syn_ops."
    if chip.energy and static is not None:
        text += (
            f" Static power is {static / chip.energy.total_mJ:.0%} of the measured energy; event counts cannot show it."
        )
    return text
