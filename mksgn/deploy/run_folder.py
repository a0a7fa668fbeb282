"""Files of a run: spikes.npz, outputs.npz, and manifest.json with the sha256 of every file and of
the parents.
"""

import hashlib
import json
import math
import os
import platform
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mksgn.common import npz
from mksgn.common.errors import BadInputError
from mksgn.common.json_text import parsed
from mksgn.common.quoting import printable, quoted
from mksgn.common.reading import RECORD_BYTES, read_bytes
from mksgn.common.replacement import settle
from mksgn.common.schemas import check_schema
from mksgn.common.writing import replacing_file, write_text
from mksgn.deploy import spike_bits
from mksgn.deploy.execution import Execution
from mksgn.deploy.program.program import Program
from mksgn.deploy.run_files import MANIFEST_FILE
from mksgn.train.checkpoint import sha256, tool_versions

SCHEMA = "mksgn.manifest/1"
UNSEALED = "0" * 64  # stands for a manifest's own hash while the hash is computed
REMEDY = "run the network again"  # what to do about a damaged file of a run
MOST_DECISIONS = 1 << 31  # of a population's stored spike trains: a byte each once they are read
TRAINS = 8  # samples whose spike trains are stored; counts per neuron are stored for all samples


def environment() -> dict[str, str]:
    """Return the versions of everything that can change a spike or a figure."""
    versions = tool_versions("mksgn", "torch", "nir", "lava-nc", "numpy", "h5py")
    return {"lava" if name == "lava-nc" else name: value for name, value in versions.items()}


def machine() -> dict[str, Any]:
    """Describe the computer, without which times are meaningless."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass  # not Linux
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return {
        "platform": platform.platform(),
        "processor": model,
        "cores": os.cpu_count(),
        "memory_GiB": None if memory is None else round(memory / 2**30, 1),
        "torch_threads": torch.get_num_threads(),
    }


def write_spikes(execution: Execution, path: Path, **more: np.ndarray) -> None:
    """Write spike counts and the first spike trains.

    `counts/POPULATION` are spikes per neuron over the run, of the population's shape.
    `trains/POPULATION` are packed bits of the first samples, and `shape/POPULATION` their shape
    (samples, steps, *shape). `more` are further arrays by name.
    """
    arrays: dict[str, Any] = dict(more)
    for name, counters in execution.counters.items():
        if counters.per_neuron.any():
            arrays[f"counts/{name}"] = counters.per_neuron
    for name, spikes in execution.spikes.items():
        arrays[f"trains/{name}"] = spike_bits.pack(spikes[:TRAINS].ravel())
        arrays[f"shape/{name}"] = np.array(spikes[:TRAINS].shape)
    with replacing_file(path) as file:  # numpy would add .npz to a name
        np.savez_compressed(file, **arrays)


def write_outputs(execution: Execution, path: Path) -> None:
    """Write outputs by name, (samples, steps, *shape) float32."""
    with replacing_file(path) as file:
        outputs: dict[str, Any] = dict(execution.outputs)
        np.savez_compressed(file, **outputs)


def recorded(path: Path) -> list[str]:
    """Return the names of the populations whose spike trains were stored."""
    return list(shapes(path))


def write_counters(execution: Execution, path: Path) -> None:
    """Write the counters of each population over the run, as JSON by its name."""
    counters = {
        name: {field.name: getattr(c, field.name) for field in fields(c) if field.name != "per_neuron"}
        for name, c in execution.counters.items()
    }
    facts = {"samples": execution.samples, "steps": execution.steps, "populations": counters}
    write_text(path, json.dumps(facts, indent=2) + "\n")


def read_train(path: Path, population: str) -> np.ndarray:
    """Read spike trains, (samples, steps, *shape) bool, of the samples that were stored.

    Raises:
        BadInputError: the file has none of this population, or is damaged.
    """
    names = shape_of, train_of = f"shape/{population}", f"trains/{population}"
    arrays = npz.read(path, REMEDY, wanted=names.__contains__)
    for name in names:
        if name not in arrays:
            raise BadInputError(f"{path}: no array {quoted(name)}; {REMEDY}")
    shape, bits = checked_shape(path, population, arrays[shape_of]), arrays[train_of]
    if bits.dtype != np.uint8 or bits.shape != (-(-math.prod(shape) // 8),):
        raise BadInputError(
            f"{path}: {quoted(train_of)} has {bits.dtype} of shape {bits.shape} for spikes of shape {shape}; {REMEDY}"
        )
    return spike_bits.unpack(bits, math.prod(shape)).reshape(shape)


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes of all spike trains, (samples, steps, *shape), by population. Raises as `read_train`."""
    arrays = npz.read(path, REMEDY, wanted=_is_shape)
    names = {name: name.removeprefix("shape/") for name in arrays}
    return {population: checked_shape(path, population, arrays[name]) for name, population in names.items()}


def checked_shape(path: Path, population: str, stored: np.ndarray) -> tuple[int, ...]:
    """Return a stored shape of spike trains. Raises BadInputError for numbers that form none."""
    numbers = stored.tolist() if stored.ndim == 1 and stored.dtype.kind in "iu" else []
    if len(numbers) < 2 or min(numbers) < 0 or math.prod(max(n, 1) for n in numbers) > MOST_DECISIONS:
        raise BadInputError(f"{path}: shape/{printable(population)} is {quoted(stored.tolist())}; {REMEDY}")
    return tuple(numbers)


def _is_shape(name: str) -> bool:
    return name.startswith("shape/")


def write_manifest(
    folder: Path,
    files: Iterable[str],
    *,
    model: Path | str,
    parents: list[str],
    program: Program,
    facts: dict[str, Any],
    model_sha256: str | None = None,
) -> None:
    """Write manifest.json: what made the folder's `files`, their hashes, and its own.

    `model` is the model's file, whose hash is computed unless `model_sha256` gives it.
    """
    manifest = {
        "schema": SCHEMA,
        "model": {"file": Path(model).name, "sha256": model_sha256 or sha256(Path(model))},
        "parents": parents,
        "program": {
            "precision": program.precision,
            "populations": len(program.populations),
            "latency_steps": program.latency,
            "dt": program.dt,
        },
        **facts,
        "machine": machine(),
        "environment": environment(),
        "files": {name: sha256(folder / name) for name in files},
    }
    _replace(folder / MANIFEST_FILE, manifest)


def update_manifest(folder: Path, files: Iterable[str], out: Path | None = None) -> None:
    """Update the hashes of `files`, which were written from the contents of the others.

    With `out`, the files are there, and the manifest is written there too.
    """
    out = out or folder
    manifest = read_manifest(folder)
    manifest["files"] |= {name: sha256(out / name) for name in files}
    _replace(out / MANIFEST_FILE, manifest)


def listed(folder: Path) -> list[str]:
    """List the files that belong to the run in a folder: those that match the hashes in its manifest."""
    try:
        files = read_manifest(folder)["files"]
        return [
            n for n, sha in files.items() if n == Path(n).name and (folder / n).is_file() and sha256(folder / n) == sha
        ]
    except (BadInputError, KeyError, AttributeError):
        return []


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check a manifest.

    Raises:
        BadInputError: it cannot be read, or was changed since it was written.
    """
    settle(folder)
    path = folder / MANIFEST_FILE
    raw = read_bytes(path, RECORD_BYTES, "name the folder of a finished run")
    manifest = parsed(raw, path, "it was changed since it was written")
    check_schema(path, manifest, SCHEMA, "run the network again")
    seal = manifest.get("sha256")
    if not isinstance(seal, str) or seal != _seal(raw.decode().replace(seal, UNSEALED, 1)):
        raise BadInputError(
            f"{path}: its text does not match the sha256 that it states; it was changed since it was written"
        )
    return manifest


def _replace(path: Path, manifest: dict[str, Any]) -> None:
    unsealed = {
        "schema": SCHEMA,
        "sha256": UNSEALED,
        **{k: v for k, v in manifest.items() if k not in ("schema", "sha256")},
    }
    draft = json.dumps(unsealed, indent=2, ensure_ascii=False) + "\n"
    write_text(path, draft.replace(UNSEALED, _seal(draft), 1))


def _seal(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
