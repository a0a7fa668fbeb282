"""What a run of SANA-FE wrote into its folder: spikes, messages, and the energies of each step."""

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mksgn.common import json_text, yaml_text
from mksgn.deploy.sana_fe.network import CORES_PER_TILE

PLACEHOLDER = -1  # id of a message without a destination: the neurons that a core handles after its last spike


@dataclass(frozen=True, eq=False)
class Messages:
    """The messages of a run: arrays (messages,)."""

    step: np.ndarray  # from 1
    group: np.ndarray  # of the neuron that fired
    source: np.ndarray  # core
    target: np.ndarray  # core
    hops: np.ndarray
    syn_ops: np.ndarray

    def at(self, which: np.ndarray) -> "Messages":
        return Messages(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


@dataclass(frozen=True, eq=False)
class Results:
    """A run of SANA-FE.

    Attributes:
        spikes: (step, neuron) of each spike, int64 (spikes, 2), by group.
        time: seconds of each step, float64 (steps,).
        energy: joules of the run by unit: synapse, soma, network, total.
        neuron_energy: joules of the neurons, inputs left out, float64 (cores, steps).
        prices: attributes of loihi.yaml by the name of the unit; those of a tile under "tile".
        sync: seconds of the barrier at the end of a step, by the least number of tiles.
    """

    spikes: dict[str, np.ndarray]
    messages: Messages
    time: np.ndarray
    energy: dict[str, float]
    neuron_energy: np.ndarray
    prices: dict[str, dict[str, float]]
    sync: dict[int, float]


def read_results(folder: Path) -> Results:
    """Read the folder that `simulate` wrote."""
    perf = _rows(folder / "perf.csv")
    columns = {name: np.array([float(row[name]) for row in perf]) for name in perf[0]}
    architecture = yaml_text.read(folder / "loihi.yaml")["architecture"]
    neurons = [
        columns[f"loihi_tile[{core // CORES_PER_TILE}].loihi_core[{core % CORES_PER_TILE}].loihi_lif.energy"]
        for core in range(sum(name.endswith("loihi_lif.energy") for name in columns))
    ]
    return Results(
        _spikes(folder / "spikes.csv"),
        _messages(folder / "messages.csv"),
        columns["sim_time"],
        json_text.read(folder / "summary.json")["energy"],
        np.stack(neurons),
        _prices(architecture),
        {tiles: float(seconds) for tiles, seconds in architecture["attributes"]["latency_sync"].items()},
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _spikes(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row in _rows(path):
        group, neuron = row["neuron"].rsplit(".", 1)
        found[group].append((int(row["timestep"]), int(neuron)))
    return {group: np.array(pairs, dtype=np.int64) for group, pairs in found.items()}


def _messages(path: Path) -> Messages:
    rows = [row for row in _rows(path) if int(row["mid"]) != PLACEHOLDER]

    def cores(column: str) -> np.ndarray:
        places = [row[column].split(".") for row in rows]
        return np.array([int(tile) * CORES_PER_TILE + int(core) for tile, core in places], dtype=np.int64)

    def numbers(column: str) -> np.ndarray:
        return np.array([int(row[column]) for row in rows], dtype=np.int64)

    groups = np.array([row["src_neuron"].rsplit(".", 1)[0] for row in rows], dtype=object)
    return Messages(numbers("timestep"), groups, cores("src_hw"), cores("dest_hw"), numbers("hops"), numbers("spikes"))


def _prices(architecture: dict[str, Any]) -> dict[str, dict[str, float]]:
    (tile,) = architecture["tile"]
    (core,) = tile["core"]
    units = [unit for kind in ("axon_in", "soma", "dendrite", "synapse", "axon_out") for unit in core[kind]]
    named = {"tile": tile["attributes"]} | {unit["name"]: unit["attributes"] for unit in units}
    return {
        name: {key: float(x) for key, x in attributes.items() if key.startswith(("energy_", "latency_"))}
        for name, attributes in named.items()
    }
