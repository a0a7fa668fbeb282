"""A chip's own counters beside a record's, population by population, and its measured energy beside every price list."""

# ruff: noqa: N815 - units keep their own spelling: mJ
from __future__ import annotations

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
    """One counter of one population (or of all, "totals"), over all clips."""

    population: str
    counter: str  # a read-out's name
    ours: int
    theirs: float
    note: str = ""

    @property
    def difference(self) -> float:
        return self.theirs - self.ours

    @property
    def ratio(self) -> float | None:
        return self.theirs / self.ours if self.ours else None

    @property
    def same(self) -> bool:
        """Equal as whole numbers: a mean per clip is equal if it is less than half an event of the run away."""
        return round(self.theirs) == self.ours


@dataclass(frozen=True)
class EnergyRow:
    """The measured energy beside one price list, mJ per clip."""

    model: str
    ours_mJ: float  # without the host's multiply-accumulates, unless the measurement includes them
    bound: bool  # ours is a lower bound: events without a price
    measured_mJ: float
    part: str  # of the measured energy: "total", or "dynamic" where the list leaves static power out
    left_out: tuple[str, ...]  # kinds of event without a price, or excluded

    @property
    def ratio(self) -> float:
        """Measured / ours."""
        return self.measured_mJ / self.ours_mJ


@dataclass(frozen=True)
class Beside:
    rows: tuple[Row, ...]
    first: Row | None  # spikes that differ in the first population of the network's order: where to look
    missing: tuple[str, ...]  # populations on the chip that the file does not have
    on_host: tuple[str, ...]  # populations that no chip can have
    energies: tuple[EnergyRow, ...]
    verdict: str


def beside(record: Record, chip: ChipCounts, *, clips: Sequence[str] | None = None) -> Beside:
    """Lay a chip's counters beside a record's. `clips`: the names of the record's clips, from its manifest.

    Raises BadInputError where the chip ran another model or other clips, or names populations that the network lacks.
    """
    _same_run(record, chip, clips)
    layers = {layer.name: layer for layer in record.layers}
    for name in chip.populations:
        if name not in layers:
            close = get_close_matches(name, layers, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"its populations are {', '.join(layers)}"
            raise BadInputError(f"{chip.name}: the network has no population {name!r}; {hint}")
        if layers[name].place == "host":
            raise BadInputError(
                f"{chip.name}: {name!r} is computed on the host in the record; leave it out of the counts"
            )
    rows = tuple(_rows(record, chip))
    on_chip = [layer for layer in record.layers if layer.place == "chip"]
    energies = tuple(_energies(record, chip))
    return Beside(
        rows=rows,
        first=next(
            (row for row in rows if row.counter == "spikes" and row.population in layers and not row.same), None
        ),
        missing=tuple(layer.name for layer in on_chip if not chip.populations.get(layer.name, Readings()).given()),
        on_host=tuple(layer.name for layer in record.layers if layer.place == "host"),
        energies=energies,
        verdict=_verdict(record, energies, chip),
    )


def _same_run(record: Record, chip: ChipCounts, clips: Sequence[str] | None) -> None:
    def refuse(what: str, remedy: str) -> None:
        raise BadInputError(f"{chip.name}: {what}; {remedy}")

    again = "run the record's clips on the chip, in the manifest's order, or mksgn-bench on the chip's clips"
    if chip.model_sha256 not in (None, record.model.sha256):
        refuse(
            f"the chip ran model {chip.model_sha256[:16]}…, the record {record.model.sha256[:16]}…",
            "put the record's model.nir on the chip, or run mksgn-bench with the chip's",
        )
    if chip.clips.count != record.data.clips:
        fewer = chip.clips.count < record.data.clips
        remedy = (
            f"mksgn-bench run --limit {chip.clips.count} selects as many, then use those; or {again}"
            if fewer
            else again
        )
        refuse(f"{chip.clips.count} clips on the chip, {record.data.clips} in the record", remedy)
    kinds = [None if s is None else s.partition(":")[0] for s in (chip.clips.source, record.data.source)]
    if kinds[0] not in (None, kinds[1]):
        refuse(f"clips of {chip.clips.source} on the chip, of {record.data.source} in the record", again)
    if chip.clips.split not in (None, record.data.split):
        refuse(f"split {chip.clips.split} on the chip, {record.data.split} in the record", again)
    if chip.clips.names_sha256 is not None and clips is not None and chip.clips.names_sha256 != clip_digest(clips):
        refuse("other clips, or the same in another order, than the record's (names_sha256)", again)


def _rows(record: Record, chip: ChipCounts) -> Iterator[Row]:
    """In the network's order, which is the record's; the totals last."""
    for layer in record.layers:
        for counter, theirs in chip.populations.get(layer.name, Readings()).given().items():
            ours = getattr(layer, COUNTERS[counter])
            if ours is not None:
                value = chip.of_the_run(theirs)
                yield Row(layer.name, counter, ours, value, _note(layer, counter, ours, value))
    chip_layers = [layer for layer in record.layers if layer.place == "chip"]
    for counter, theirs in chip.totals.given().items():
        ours = sum(getattr(layer, COUNTERS[counter]) or 0 for layer in chip_layers)
        yield Row("totals", counter, ours, chip.of_the_run(theirs))


def _note(layer: Layer, counter: str, ours: int, theirs: float) -> str:
    """A difference that a known way of counting explains to the last event."""
    difference = round(theirs) - ours
    if not difference:
        return ""
    if counter == "dendrite_updates":
        if layer.product_units and difference == -layer.product_units:
            return "equal without our product units: this chip has none, or counts them elsewhere"
        if ours and round(theirs) >= ours and round(theirs) % ours == 0:
            return f"{round(theirs) // ours} times ours: passes of the neuron program, or steps outside the window"
    if counter == "syn_ops" and round(theirs) == layer.effective_acs:
        return "equal to our effective_acs: synapses of weight 0 are not stored on this chip"
    if counter == "axon_out":
        if layer.coincidences and difference == -layer.coincidences:
            return "equal without our coincidences: product units send nothing on this chip"
        if round(theirs) == layer.spikes:
            return "equal to our spikes: every spike counted once, however many cores it is sent to"
    return ""


def _energies(record: Record, chip: ChipCounts) -> Iterator[EnergyRow]:
    """Like with like: without what was not measured, on the side that has it."""
    if chip.energy is None:
        return
    dynamic = chip.energy.split[1]
    for entry in record.energy:
        host = 0.0 if chip.energy.includes_host else entry.terms.get("host_macs", 0.0)
        ours = entry.priced_mJ - host
        if ours <= 0:
            continue
        without_static = "static_power" in (*entry.unpriced, *entry.excludes)
        part = "dynamic" if without_static and dynamic is not None else "total"
        measured = dynamic if part == "dynamic" and dynamic is not None else chip.energy.total_mJ
        on_neither = {
            *(["host_macs"] if not chip.energy.includes_host else []),
            *(["static_power"] if part == "dynamic" else []),
        }
        unpriced = [event for event in entry.unpriced if event not in on_neither]
        left_out = [event for event in dict.fromkeys((*unpriced, *entry.excludes)) if event not in on_neither]
        yield EnergyRow(entry.model, ours, bool(unpriced), measured, part, tuple(left_out))


def _verdict(record: Record, energies: Sequence[EnergyRow], chip: ChipCounts) -> str:
    """Which price list comes nearest, as a ratio, what it leaves out, and which are refuted."""
    possible = [row for row in energies if row.measured_mJ > 0]
    if not possible:
        return "No energy was measured." if chip.energy is None else "No price list priced this run."
    nearest = min(possible, key=lambda row: abs(log(row.ratio)))
    text = (
        f"Nearest is {nearest.model}: {'at least ' if nearest.bound else ''}{nearest.ours_mJ:.3g} mJ per clip for "
        f"{nearest.measured_mJ:.3g} mJ measured ({nearest.part}), {nearest.ratio:.3g} times as much. "
        f"It leaves out {', '.join(nearest.left_out) or 'nothing'}."
    )
    above = [row.model for row in possible if row.ours_mJ > row.measured_mJ]
    if above:
        text += f" More than was measured: {', '.join(above)}; these prices are not this chip's."
    static, dynamic = chip.energy.split if chip.energy else (None, None)
    if dynamic and record.totals.syn_ops:
        most = dynamic / PJ_IN_MJ / record.totals.syn_ops
        text += f" One of our syn_ops cost {most:.3g} pJ at most: all of the dynamic energy, over their number."
    if chip.energy and static is not None:
        text += (
            f" Static power is {static / chip.energy.total_mJ:.0%} of what was measured; no count of events reveals it."
        )
    return text
