"""Counters as a laboratory would read them from a chip, for a run's record."""

from typing import Any

from mksgn.bench.chip_counts.counts import COUNTERS, ChipCounts
from mksgn.bench.record import Record
from tests.support.bench_folders import CLIPS


def readings(record: Record) -> dict[str, dict[str, float]]:
    """Return the counters of a chip that counts exactly as the record does."""
    chip = [layer for layer in record.layers if layer.place == "chip"]
    return {layer.name: {name: getattr(layer, field) for name, field in COUNTERS.items()} for layer in chip}


def counts(record: Record, **changes: Any) -> ChipCounts:
    values = {
        "schema": "mksgn.chip_counts/1",
        "name": "board-7",
        "chip": "a chip",
        "board": "a board",
        "software": "compiler 1.0",
        "method": "counters of every core read before and after the run",
        "model_sha256": record.model.sha256,
        "clips": {"count": CLIPS, "source": "synthetic", "split": record.data.split},
        "counts_are": "of the run",
        "populations": readings(record),
        **changes,
    }
    return ChipCounts.model_validate(values)


def changed(record: Record, population: str, counter: str, value: float) -> ChipCounts:
    populations = readings(record)
    populations[population][counter] = value
    return counts(record, populations=populations)


ENERGY = {"total_mJ": 2.0, "static_mJ": 1.5, "includes": ["all rails of one chip"]}
