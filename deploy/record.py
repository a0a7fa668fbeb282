"""The folder that a run leaves: spikes.npz and manifest.json, with the sha256 of every file and of the parents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mksgn.deploy.execution import Execution
from mksgn.deploy.program import Program
from mksgn.train.atomic import replacing
from mksgn.train.checkpoint import sha256, tool_versions

SCHEMA = "mksgn.manifest/1"
TRAINS = 8  # clips whose spike trains are kept whole; of all others the counts per neuron


def environment() -> dict[str, str]:
    """Versions of everything that can change a spike or a figure."""
    versions = tool_versions("mksgn", "torch", "nir", "lava-nc", "numpy", "h5py")
    return {"lava" if name == "lava-nc" else name: value for name, value in versions.items()}


def write_spikes(execution: Execution, path: Path) -> None:
    """`counts/POPULATION`: spikes per neuron over the run, of the population's shape. `trains/POPULATION`: packed bits of the
    first clips, with `shape/POPULATION` (clips, steps, *shape)."""
    arrays: dict[str, np.ndarray] = {}
    for name, counters in execution.counters.items():
        if counters.per_neuron.any():
            arrays[f"counts/{name}"] = counters.per_neuron
    for name, spikes in execution.spikes.items():
        arrays[f"trains/{name}"] = np.packbits(spikes[:TRAINS])
        arrays[f"shape/{name}"] = np.array(spikes[:TRAINS].shape)
    with replacing(path) as temporary, open(temporary, "wb") as file:  # an open file: numpy adds .npz to a name
        np.savez_compressed(file, **arrays)


def write_outputs(execution: Execution, path: Path) -> None:
    """By output's name: (clips, steps, *shape) float32."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **execution.outputs)


def read_train(path: Path, population: str) -> np.ndarray:
    """(clips, steps, *shape) bool of the clips whose trains were kept."""
    with np.load(path) as arrays:
        shape = arrays[f"shape/{population}"]
        return np.unpackbits(arrays[f"trains/{population}"], count=int(np.prod(shape))).astype(bool).reshape(shape)


def write_manifest(folder: Path, *, model: Path, parents: list[str], program: Program, facts: dict[str, Any]) -> None:
    """manifest.json: what made the folder's files, and their hashes."""
    files = {
        p.name: sha256(p)
        for p in sorted(folder.iterdir())
        if p.is_file() and p.name != "manifest.json" and ".part" not in p.name
    }
    manifest = {
        "schema": SCHEMA,
        "model": {"file": model.name, "sha256": sha256(model)},
        "parents": parents,
        "program": {
            "precision": program.precision,
            "populations": len(program.populations),
            "latency_steps": program.latency,
        },
        **facts,
        "environment": environment(),
        "files": files,
    }
    with replacing(folder / "manifest.json") as temporary:
        temporary.write_text(json.dumps(manifest, indent=2) + "\n")
