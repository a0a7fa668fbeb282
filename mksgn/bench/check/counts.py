"""run.json against what it follows from: spikes per neuron, totals of the layers, prices of the events, the predictions.

Counts are whole numbers and must be equal. Means and energies are floats that the same formula gives again; they may
differ in the last digits, by 1e-9 of their value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isclose, prod
from pathlib import Path

import numpy as np

from mksgn.bench.accuracy import accuracy_of
from mksgn.bench.check.findings import CheckResult
from mksgn.bench.counters import totals_of
from mksgn.bench.energy_models import EnergyModel, known_models, price
from mksgn.bench.record import RUN_FILE, Accuracy, Layer, Record
from mksgn.common.errors import BadInputError, first_line
from mksgn.deploy import spike_bits
from mksgn.deploy.run_folder import TRAINS

ROUNDING = 1e-9  # relative


def bodies_of(record: Record) -> int:
    """Bodies that were run, over all clips."""
    return round(record.totals.lanes * record.data.clips)


def check_totals(result: CheckResult, record: Record) -> None:
    """`totals` against the layers, and what a layer says twice."""
    run = record.execution
    expected = totals_of(record.layers, clips=record.data.clips, steps=run.steps, latency_steps=run.latency_steps)
    for name, total in expected.items():
        stated = getattr(record.totals, name)
        if stated is not None and not _same(stated, total):
            result.fault(RUN_FILE, f"totals.{name} is {stated:,.10g}, the layers give {total:,.10g}")
    products = record.totals.host_macs + record.totals.graded_macs
    if record.totals.Effective_MACs > products * (1 + ROUNDING):
        result.fault(
            RUN_FILE,
            f"totals.Effective_MACs ({record.totals.Effective_MACs}) exceeds the MACs of which it is a part ({products})",
        )
    bodies = record.totals.lanes * record.data.clips
    if not _same(bodies, round(bodies)) or bodies < record.data.clips:
        result.fault(RUN_FILE, f"totals.lanes ({record.totals.lanes}) is no whole number of bodies for the clips")
    for layer in record.layers:
        if layer.neurons != prod(layer.shape):
            result.fault(RUN_FILE, f"{layer.name}: neurons ({layer.neurons}) is not the product of its shape")
    if run.seconds > 0 and not _same(run.clips_per_second, record.data.clips / run.seconds):
        result.fault(RUN_FILE, f"execution.clips_per_second is {run.clips_per_second}, not clips / seconds")
    result.checked.append(f"{RUN_FILE}: totals from its {len(record.layers)} layers")
    result.skip(
        RUN_FILE,
        "what only another run can show: syn_ops and messages of a layer, largest membranes, host-to-chip spikes, weights, times",
    )


def check_energies(result: CheckResult, record: Record, models: Sequence[EnergyModel] | None = None) -> None:
    """Every energy from the totals, by the model of its name."""
    by_name = {model.name: model for model in (known_models() if models is None else models)}
    for entry in record.energy:
        if entry.model not in by_name:
            result.skip(RUN_FILE, f"energy under {entry.model}: no such energy model here; name its file")
            continue
        wanted = price(by_name[entry.model], record.totals, steps=record.execution.steps)
        for name in type(entry).model_fields:
            if not _same(getattr(entry, name), getattr(wanted, name)):
                found, expected = getattr(entry, name), getattr(wanted, name)
                result.fault(RUN_FILE, f"energy under {entry.model}: {name} is {found!r}, the totals give {expected!r}")
    result.checked.append(f"{RUN_FILE}: {len(record.energy)} energies from the totals")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of spikes.npz. Raises BadInputError in one line for a file that is missing or damaged anywhere."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise BadInputError(f"{path}: missing") from error
    except Exception as error:  # zipfile, zlib and numpy each raise their own for a damaged file
        raise BadInputError(f"{path}: cannot be read ({first_line(error)})") from error


def check_spikes(result: CheckResult, record: Record, path: Path) -> None:
    """Spikes, rates, silent and saturated neurons of each layer from the counts per neuron, and those from the trains."""
    try:
        arrays = read_arrays(path)
    except BadInputError as error:
        result.fault(path.name, str(error).removeprefix(f"{path}: "))
        return
    for layer in record.layers:
        _layer(result, record, layer, arrays, path.name)
    result.checked.append(f"{path.name}: spikes per neuron and trains of {len(record.layers)} layers")


def _layer(result: CheckResult, record: Record, layer: Layer, arrays: Mapping[str, np.ndarray], file: str) -> None:
    bodies = bodies_of(record)
    events = bodies * record.execution.steps
    counts = arrays.get(f"counts/{layer.name}")
    fires = counts is not None or f"trains/{layer.name}" in arrays  # a read-out has neither
    if counts is None:  # of a population that never fired there are none
        counts = np.zeros(layer.shape, dtype=np.int64)
    if counts.shape != tuple(layer.shape) or counts.dtype.kind not in "iu":
        stated = f"{counts.dtype} of shape {counts.shape}"
        result.fault(file, f"counts/{layer.name}: {stated}, the layer has whole numbers of shape {tuple(layer.shape)}")
        return
    if counts.size and not 0 <= int(counts.min()) <= int(counts.max()) <= events:
        result.fault(file, f"counts/{layer.name}: {int(counts.min())} to {int(counts.max())} spikes in {events} steps")
    follows = {
        "spikes": int(counts.sum()),
        "firing_rate": int(counts.sum()) / (layer.neurons * events) if fires and layer.neurons else 0.0,
        "silent_fraction": float((counts == 0).mean()) if fires else layer.silent_fraction,
        "saturated_fraction": float((counts == events).mean()) if fires else 0.0,
    }
    for name, wanted in follows.items():
        found = getattr(layer, name)
        if not _same(found, wanted):
            result.fault(RUN_FILE, f"{layer.name}: {name} is {found:,.10g}, {file} gives {wanted:,.10g}")
    if f"trains/{layer.name}" in arrays:
        fault = _train_fault(layer, counts, arrays, bodies, record.execution.steps)
        if fault:
            result.fault(file, f"trains/{layer.name}: {fault}")


def _train_fault(
    layer: Layer, counts: np.ndarray, arrays: Mapping[str, np.ndarray], bodies: int, steps: int
) -> str | None:
    """What is wrong with a population's spike trains: (bodies kept, steps, *shape), packed to bits."""
    kept = min(TRAINS, bodies)
    shape, packed = arrays.get(f"shape/{layer.name}"), arrays[f"trains/{layer.name}"]
    wanted = (kept, steps, *layer.shape)
    if shape is None or tuple(shape.tolist()) != wanted:
        return f"shape {None if shape is None else shape.tolist()}, the run has {list(wanted)}"
    if packed.dtype != np.uint8 or packed.shape != ((prod(wanted) + 7) // 8,):
        return f"{packed.size} bytes of {packed.dtype} for {prod(wanted)} decisions"
    train = spike_bits.unpack(packed, prod(wanted)).reshape(wanted)
    found = train.sum((0, 1), dtype=np.int64)
    if kept == bodies and not np.array_equal(found, counts):
        return f"{int((found != counts).sum())} neurons have other counts than counts/{layer.name}, of the same bodies"
    if (found > counts).any():
        return f"{int((found > counts).sum())} neurons fire more often in {kept} bodies than in all {bodies}"
    return None


def check_predictions(
    result: CheckResult,
    record: Record,
    predictions: Sequence[int],
    labels: Sequence[int] | None,
    classes: Sequence[str] | None,
    clips: int,
) -> None:
    """Accuracy, recall by class and confusion from the manifest's predictions and labels."""
    if len(predictions) != clips:
        result.fault(RUN_FILE, f"{len(predictions)} predictions for {clips} clips in the manifest")
        return
    if record.accuracy is None:
        return
    if labels is None or classes is None:
        result.skip(RUN_FILE, "accuracy: the manifest has no labels")
        return
    if len(labels) != clips:
        result.fault(RUN_FILE, f"{len(labels)} labels for {clips} clips in the manifest")
        return
    outside = [x for x in (*labels, *predictions) if not 0 <= x < len(classes)]
    if outside:
        result.fault(RUN_FILE, f"class {outside[0]} in the manifest, which names {len(classes)}")
        return
    expected = accuracy_of(labels, predictions, classes)
    for name in Accuracy.model_fields:
        if not _same(getattr(record.accuracy, name), getattr(expected, name)):
            result.fault(RUN_FILE, f"accuracy.{name} does not follow from the manifest's predictions and labels")
    result.checked.append(f"{RUN_FILE}: accuracy and confusion from the predictions and labels of {clips} clips")


def _same(found: object, wanted: object) -> bool:
    """Equal, but for the rounding of floats; dictionaries value by value."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(_same(found[key], wanted[key]) for key in found)
    if isinstance(found, float) or isinstance(wanted, float):
        numbers = isinstance(found, (int, float)) and isinstance(wanted, (int, float))
        return numbers and isclose(found, wanted, rel_tol=ROUNDING, abs_tol=0.0)  # type: ignore[arg-type]
    return found == wanted
