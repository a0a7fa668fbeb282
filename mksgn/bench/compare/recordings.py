"""Compare recorded spikes, decision by decision: those of a run, and those that another simulator or a chip wrote."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from mksgn.bench.compare.gate import Bounds
from mksgn.bench.compare.tables import NONE
from mksgn.bench.errors import BoundMissedError
from mksgn.common import hdf5
from mksgn.common.errors import BadInputError
from mksgn.common.tables import table
from mksgn.deploy import nir_data
from mksgn.deploy.nir_data import Recording

SCHEMA = "mksgn.compare-recordings/1"


@dataclass(frozen=True)
class Difference:
    """One population in both recordings; `a` is the reference.

    Attributes:
        decisions: how many were compared.
        differ: how many of them differ.
        first: (step, sample, neuron) of the first that differs, the earliest step first.
    """

    population: str
    decisions: int
    differ: int
    spikes_a: int
    spikes_b: int
    first: tuple[int, int, int] | None


@dataclass(frozen=True)
class Comparison:
    """All populations that both recordings have, in the order of the reference."""

    a: Recording
    b: Recording
    samples: int
    populations: tuple[Difference, ...]

    @property
    def differ(self) -> int:
        return sum(population.differ for population in self.populations)

    @property
    def decisions(self) -> int:
        return sum(population.decisions for population in self.populations)


def is_recording(path: Path) -> bool:
    """Whether a path names recordings in HDF5, and not a run."""
    return hdf5.is_hdf5(path)


def compare(a: Path, b: Path) -> Comparison:
    """Compare two recordings, or a recording with a run's folder, sample by sample.

    Where one has more samples, the first ones are compared.

    Args:
        a: The reference: a run's folder, or a file of nir.write_data.
        b: What is compared with it.

    Raises:
        BadInputError: One cannot be read, or they have no population in common, or different steps or neurons.
    """
    folders = {path: nir_data.of_folder(path) for path in (a, b) if path.is_dir()}
    dt = nir_data.dt_of_folder(next(iter(folders))) if folders else nir_data.dt_of_file(a)
    first, second = (folders.get(path) or nir_data.read(path, dt) for path in (a, b))
    common = [name for name in first.spikes if name in second.spikes]
    if not common:
        raise BadInputError(
            f"{b}: has none of the populations {', '.join(first.spikes)}; it has {', '.join(second.spikes)}: "
            "name its nodes as in the graph"
        )
    samples = min(len(recording.spikes[common[0]]) for recording in (first, second))
    populations = tuple(
        _difference(b, name, first.spikes[name][:samples], second.spikes[name][:samples]) for name in common
    )
    return Comparison(first, second, samples, populations)


def _difference(path: Path, name: str, a: np.ndarray, b: np.ndarray) -> Difference:
    if a.shape != b.shape:
        raise BadInputError(
            f"{path}: population {name} has (samples, steps, neurons) {b.shape}, the reference {a.shape}; record the "
            "same steps, at the same time step"
        )
    places = np.argwhere((a != b).swapaxes(0, 1))
    first = (int(places[0][0]), int(places[0][1]), int(places[0][2])) if len(places) else None
    return Difference(name, a.size, len(places), int(a.sum()), int(b.sum()), first)


def tables(comparison: Comparison) -> list[Table]:
    """Return the table for the terminal."""
    headings = ("population", "decisions", "differ", "spikes, a", "spikes, b", "first: step, sample, neuron")
    rows = [
        (
            p.population,
            f"{p.decisions:,}",
            f"{p.differ:,}",
            f"{p.spikes_a:,}",
            f"{p.spikes_b:,}",
            NONE if p.first is None else ", ".join(map(str, p.first)),
        )
        for p in comparison.populations
    ]
    return [table("recorded spikes", headings, rows)]


def sentences(comparison: Comparison) -> Iterator[str]:
    """Yield what the table does not say."""
    yield (
        f"{comparison.differ:,} of {comparison.decisions:,} decisions differ, on {comparison.samples} samples that both "
        "recorded"
    )
    for recording, other in ((comparison.a, comparison.b), (comparison.b, comparison.a)):
        alone = [name for name in recording.spikes if name not in other.spikes]
        if alone:
            yield f"only in {recording.name}: {', '.join(alone)}"
        for name, events in recording.doubled.items():
            yield f"{recording.name}: {name}: {events} events share a step with another of the same neuron; one is counted"


def document(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as --json prints it."""
    return {
        "schema": SCHEMA,
        "a": comparison.a.name,
        "b": comparison.b.name,
        "samples": comparison.samples,
        "decisions": comparison.decisions,
        "differ": comparison.differ,
        "populations": [asdict(population) for population in comparison.populations],
    }


HEADINGS = "| population | decisions | differ | spikes, a | spikes, b |"


def is_markdown(head: str) -> bool:
    """Return whether a file begins as `markdown` begins one."""
    return HEADINGS in head


def markdown(comparison: Comparison) -> str:
    """Return the comparison as Markdown, for a pull request."""
    rows: Sequence[str] = [
        f"| {p.population} | {p.decisions:,} | {p.differ:,} | {p.spikes_a:,} | {p.spikes_b:,} |"
        for p in comparison.populations
    ]
    head = [HEADINGS, "|---|---:|---:|---:|---:|"]
    return "\n\n".join([*sentences(comparison), "\n".join([*head, *rows])]) + "\n"


def check_bounds(bounds: Bounds) -> None:
    """Raise BadInputError for a bound on anything that a recording does not hold."""
    if bounds.limits():
        raise BadInputError(
            f"{', '.join(bounds.limits())}: a recording has only spikes; the only bound for it is --identical"
        )


def raise_different(comparison: Comparison, compared: str) -> None:
    """Raise BoundMissedError, which names what was compared, if any decision differs."""
    if comparison.differ:
        missed = f"identical: {comparison.differ} of {comparison.decisions} decisions differ"
        raise BoundMissedError(compared, [missed])
