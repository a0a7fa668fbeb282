"""Spike recordings in nir's own data format, NIRGraphData: a run's, and those of other simulators and chips.

Each population is a node with the observable `spikes`, of shape (samples, steps, neurons): TimeGriddedData of
bool, or EventData, as jaxsnn and hxtorch write them. Neurons are numbered in C order of the population's shape.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import nir
import numpy as np

from mksgn.common import hdf5
from mksgn.common.contents import check_content
from mksgn.common.errors import BadInputError, first_line
from mksgn.common.quoting import printable, quoted
from mksgn.common.writing import replacing_file
from mksgn.deploy.run_files import SPIKES_FILE
from mksgn.deploy.run_folder import read_manifest, read_train, recorded

SPIKES = "spikes"
EARLY = 1e-6  # of a step: how far rounding may put an event before its step
MOST_VALUES = 1 << 31  # of one population's grid of steps


@dataclass(frozen=True)
class Recording:
    """Spike trains of one source.

    Attributes:
        name: what to call it.
        spikes: (samples, steps, neurons) bool by population.
        doubled: events by population that share their step with another event of the same neuron, if any.
    """

    name: str
    spikes: Mapping[str, np.ndarray]
    doubled: Mapping[str, int]


def of_folder(folder: Path) -> Recording:
    """Read the spike trains stored in a run's folder, which are those of its first samples.

    Raises:
        BadInputError: the folder has no spikes.npz, or it cannot be read.
    """
    path = folder / SPIKES_FILE
    if not path.is_file():
        raise BadInputError(
            f"{path}: no such file; make one with mksgn-deploy -o {folder} or mksgn-bench run -o {folder}"
        )
    check_content(path)
    try:
        trains = {name: read_train(path, name) for name in recorded(path)}
        spikes = {name: x.reshape(*x.shape[:2], -1) for name, x in trains.items()}
    except Exception as error:  # zipfile, KeyError, ValueError, … depending on where the damage is
        raise BadInputError(f"{path}: cannot be read ({first_line(error)}); run the network again") from error
    return Recording(str(folder), spikes, {})


def write(recording: Recording, path: Path, dt: float) -> None:
    """Write a recording for `nir.read_data`; `dt` is the time step in seconds."""
    nodes = {
        name: nir.NIRNodeData({SPIKES: nir.TimeGriddedData(np.asarray(x, dtype=bool), dt)})
        for name, x in recording.spikes.items()
    }
    slashed = sorted(name for name in nodes if "/" in name)
    if slashed:
        raise BadInputError(
            f"{path}: population {slashed[0]}: names in HDF5 cannot contain '/'; rename it in the graph"
        )
    with replacing_file(path) as file:
        nir.write_data(file, nir.NIRGraphData(nodes))


def dt_of_folder(folder: Path) -> float:
    """Return the time step of a run in seconds; 1e-4 if an older manifest does not say."""
    program = read_manifest(folder).get("program") or {}
    dt = program.get("dt", 1e-4) if isinstance(program, dict) else None
    if isinstance(dt, bool) or not isinstance(dt, int | float) or not 0 < dt < math.inf:
        raise BadInputError(
            f"{folder}: the manifest's time step is {quoted(dt)}, expected seconds; run the network again"
        )
    return float(dt)


def dt_of_file(path: Path) -> float:
    """Return the time step of time-gridded data in seconds; 1e-4 if there are only events.

    Raises:
        BadInputError: As `read` does.
    """
    with _opened(path) as file:
        steps: list[float] = []
        file.visititems(lambda name, item: steps.append(float(item.attrs["dt"])) if "dt" in item.attrs else None)
    for dt in steps[:1]:
        if not (np.isfinite(dt) and dt > 0):
            raise BadInputError(f"{path}: its time step is {dt} s, expected one above 0; record it again")
    return steps[0] if steps else 1e-4


def read(path: Path, dt: float) -> Recording:
    """Read a recording as steps of `dt` seconds; nested graphs give the names "outer.inner".

    Events become spikes of the step in which they lie. Time-gridded data keep their own steps.

    Raises:
        BadInputError: the file is missing, damaged, of another kind, or holds no spikes.
    """
    spikes, doubled = {}, {}
    with _opened(path) as file:
        observed = dict(_spikes(nir.read_data(file.id)))
        if not observed:
            raise BadInputError(f"{path}: no node has the observable {SPIKES!r}; record spikes under that name")
        for name, values in observed.items():
            spikes[name], more = _grid(f"{path}: {name}", values, dt)
            if more:
                doubled[name] = more
    return Recording(str(path), spikes, doubled)


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        with hdf5.opened(path, "a recording of nir.write_data", "nir.write_data makes one", attributes=True) as file:
            yield file
    except BadInputError:
        raise
    except Exception as error:  # h5py, KeyError, ValueError, … depending on where the damage is
        raise BadInputError(
            f"{path}: not a readable recording ({printable(first_line(error))}); write it with nir.write_data"
        ) from error


def _spikes(data: nir.NIRGraphData, prefix: str = "") -> Iterator[tuple[str, nir.TimeGriddedData | nir.EventData]]:
    for name, node in data.nodes.items():
        if isinstance(node, nir.NIRGraphData):
            yield from _spikes(node, f"{prefix}{name}.")
        elif SPIKES in node.observables:
            yield f"{prefix}{name}", node.observables[SPIKES]


def _grid(place: str, values: nir.TimeGriddedData | nir.EventData, dt: float) -> tuple[np.ndarray, int]:
    """Return (samples, steps, neurons) bool, and how many events fell on a spike that was already there."""
    if isinstance(values, nir.TimeGriddedData):
        if not np.isin(values.data, (0, 1)).all():
            raise BadInputError(f"{place}: spikes are 0 or 1, and other values were recorded; record single spikes")
        return values.data.astype(bool), 0
    samples = len(values.idx)
    steps = round(values.t_max / dt)
    if not 0 < samples * steps * values.n_neurons <= MOST_VALUES:
        raise BadInputError(
            f"{place}: {samples} samples of {steps} steps of {dt:g} s and {values.n_neurons} neurons, expected at most "
            f"{MOST_VALUES:,} values; check t_max, which is in seconds"
        )
    grid = np.zeros((samples, steps, values.n_neurons), dtype=bool)
    # no event: index -1, or a time beyond the recording (jaxsnn writes twice t_max)
    sample, event = np.nonzero((values.idx >= 0) & np.isfinite(values.time) & (values.time < values.t_max))
    neuron, step = values.idx[sample, event], np.floor(values.time[sample, event] / dt + EARLY).astype(np.int64)
    if neuron.max(initial=0) >= values.n_neurons or step.min(initial=0) < 0:
        raise BadInputError(f"{place}: an event of a neuron beyond {values.n_neurons}, or before 0 s; record it again")
    grid[sample, np.minimum(step, steps - 1), neuron] = True
    return grid, len(sample) - int(grid.sum())
