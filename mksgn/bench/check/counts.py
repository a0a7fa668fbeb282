"""Recompute the figures of run.json from each other, from the spikes and from the predictions.

Counts are integers and must be equal. Means and energies are floats from the same formulas; they
may differ in the last digits, by 1e-9 of their value.
"""

from collections.abc import Mapping, Sequence
from math import isclose, prod
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from mksgn.bench.accuracy import accuracy_of
from mksgn.bench.check.findings import CheckResult
from mksgn.bench.counters import totals_of
from mksgn.bench.energy_models import TIME_STEPS, EnergyModel, known_models, price
from mksgn.bench.manifest import Manifest
from mksgn.bench.prices import EVENTS
from mksgn.bench.record import Accuracy, EnergyEntry, Layer, Record
from mksgn.bench.run_files import RUN_FILE
from mksgn.common import npz
from mksgn.common.errors import BadInputError, without_path
from mksgn.common.progress import track
from mksgn.common.words import counted
from mksgn.deploy import spike_bits
from mksgn.deploy.run_folder import REMEDY, TRAINS

ROUNDING = 1e-9  # relative


def check_totals(result: CheckResult, record: Record) -> None:
    """Check `totals` against the layers, and redundant fields against each other."""
    clips, run, totals = record.data.clips, record.execution, record.totals
    expected = totals_of(
        record.layers, clips=clips, steps=run.steps, latency_steps=run.latency_steps, encoder_steps=run.encoder_steps
    )
    for name, total in expected.items():
        stated = getattr(totals, name)
        stated = stated.model_dump() if isinstance(stated, BaseModel) else stated
        if stated is not None and not _same(stated, total):
            result.fault(RUN_FILE, f"totals.{name} is {_shown(stated)}, the layers give {_shown(total)}")
    macs = totals.host_macs + totals.graded_macs
    if totals.Effective_MACs > macs * (1 + ROUNDING):
        result.fault(RUN_FILE, f"totals.Effective_MACs ({totals.Effective_MACs}) exceeds all MACs ({macs})")
    bodies = totals.lanes * clips
    if not _same(bodies, round(bodies)) or bodies < clips:
        result.fault(RUN_FILE, f"totals.lanes ({totals.lanes}) does not give a whole number of bodies for the clips")
    for layer in record.layers:
        if layer.neurons != prod(layer.shape):
            result.fault(RUN_FILE, f"{layer.name}: neurons ({layer.neurons}) is not the product of its shape")
    if run.seconds > 0 and not _same(run.clips_per_second, clips / run.seconds):
        result.fault(RUN_FILE, f"execution.clips_per_second is {run.clips_per_second}, not clips / seconds")
    result.checked.append(f"{RUN_FILE}: totals from its {len(record.layers)} layers")
    result.skip(
        RUN_FILE,
        "what only another run can show: syn_ops and messages of a layer, largest membranes, host-to-chip spikes, "
        "weights, times",
    )


def check_energies(result: CheckResult, record: Record, models: Sequence[EnergyModel] | None = None) -> None:
    """Check every energy against the totals, at the prices that the record states.

    Records of versions before prices were kept name only the model: its source decides which of
    the known models it was.
    """
    known = known_models() if models is None else models
    recomputed = 0
    for entry in record.energy:
        namesake = next((model for model in known if model.name == entry.model), None)
        if entry.prices is not None:
            if namesake is not None and namesake.pricing != entry.prices:
                result.remark(
                    RUN_FILE, f"energy under {entry.model}: its prices differ from those of the model of that name here"
                )
            stated = EnergyModel(name=entry.model, evidence=entry.evidence, source=entry.source, **dict(entry.prices))
            expected = price(stated, record.totals, steps=record.execution.steps)
        else:
            model = next((model for model in known if model.source == entry.source), namesake)
            if model is None:
                result.skip(RUN_FILE, f"energy under {entry.model}: no such energy model here; name its file")
                continue
            expected = as_before(price(model, record.totals, steps=record.execution.steps), entry)
        recomputed += 1
        for name in type(entry).model_fields:
            stated_value, follows = getattr(entry, name), getattr(expected, name)
            if not _same(stated_value, follows):
                fault = f"{name} is {stated_value!r}, the totals give {follows!r}"
                result.fault(RUN_FILE, f"energy under {entry.model}: {fault}")
    result.checked.append(f"{RUN_FILE}: {recomputed} energies from the totals")


def as_before(entry: EnergyEntry, old: EnergyEntry) -> EnergyEntry:
    """Return an energy in the form of versions before prices were kept.

    They listed lower bounds as unpriced, and hops as messages, and had no term for memory and
    addresses. An energy model's name and evidence are the old record's.
    """
    kinds = {"spike_messages" if event == "spike_hops" else event for event in (*entry.unpriced, *entry.lower_bounds)}
    return entry.model_copy(
        update={
            "model": old.model,
            "unpriced": [event for event in (*EVENTS, TIME_STEPS) if event in kinds],
            "excludes": [event for event in entry.excludes if event != "spike_hops"],
            "lower_bounds": {},
            "prices": None,
        }
    )


def check_spikes(result: CheckResult, record: Record, path: Path) -> None:
    """Check each layer against the counts per neuron in spikes.npz, and those counts against the spike trains."""
    try:
        arrays = read_arrays(path)
    except BadInputError as error:
        result.fault(path.name, without_path(error, path))
        return
    bodies = round(record.totals.lanes * record.data.clips)
    for layer in track(record.layers, len(record.layers), "layers checked"):
        _check_layer(result, layer, arrays, path.name, bodies, record.execution.steps)
    result.checked.append(f"{path.name}: spikes per neuron and trains of {len(record.layers)} layers")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays, so that any damage is found. Raises BadInputError in one line."""
    if not path.exists():
        raise BadInputError(f"{path}: missing")
    return npz.read(path, REMEDY)


def _check_layer(
    result: CheckResult, layer: Layer, arrays: Mapping[str, np.ndarray], file: str, bodies: int, steps: int
) -> None:
    decisions = bodies * steps  # per neuron
    counts = arrays.get(f"counts/{layer.name}")
    fires = counts is not None or f"trains/{layer.name}" in arrays  # a read-out has neither
    if counts is None:  # the run writes none for a population that never fired
        counts = np.zeros(layer.shape, dtype=np.int64)
    if counts.shape != tuple(layer.shape) or counts.dtype.kind not in "iu":
        stated = f"{counts.dtype} of shape {counts.shape}"
        result.fault(file, f"counts/{layer.name}: {stated}, the layer has integers of shape {tuple(layer.shape)}")
        return
    if counts.size and not 0 <= int(counts.min()) <= int(counts.max()) <= decisions:
        span = f"{int(counts.min())} to {int(counts.max())}"
        result.fault(file, f"counts/{layer.name}: {span} spikes of a neuron in {decisions} steps")
    expected = {
        "spikes": int(counts.sum()),
        "firing_rate": int(counts.sum()) / (layer.neurons * decisions) if fires and layer.neurons else 0.0,
        "silent_fraction": float((counts == 0).mean()) if fires else layer.silent_fraction,
        "saturated_fraction": float((counts == decisions).mean()) if fires else 0.0,
    }
    for name, value in expected.items():
        stated = getattr(layer, name)
        if not _same(stated, value):
            result.fault(RUN_FILE, f"{layer.name}: {name} is {stated:,.10g}, {file} gives {value:,.10g}")
    if f"trains/{layer.name}" in arrays and (fault := _train_fault(layer, counts, arrays, bodies, steps)):
        result.fault(file, f"trains/{layer.name}: {fault}")


def _train_fault(
    layer: Layer, counts: np.ndarray, arrays: Mapping[str, np.ndarray], bodies: int, steps: int
) -> str | None:
    """Compare a layer's spike trains, packed (bodies kept, steps, *shape), with its counts per neuron."""
    kept = min(TRAINS, bodies)
    shape, packed = arrays.get(f"shape/{layer.name}"), arrays[f"trains/{layer.name}"]
    expected = (kept, steps, *layer.shape)
    if shape is None or tuple(shape.tolist()) != expected:
        return f"shape {None if shape is None else shape.tolist()}, the run has {list(expected)}"
    if packed.dtype != np.uint8 or packed.shape != ((prod(expected) + 7) // 8,):
        return f"{packed.size} bytes of {packed.dtype} for {prod(expected)} decisions"
    sums = spike_bits.unpack(packed, prod(expected)).reshape(expected).sum((0, 1), dtype=np.int64)
    if kept == bodies and not np.array_equal(sums, counts):
        return (
            f"{int((sums != counts).sum())} neurons have counts that differ from counts/{layer.name}, for the same "
            "bodies"
        )
    if (sums > counts).any():
        return f"{int((sums > counts).sum())} neurons fire more often in {kept} bodies than in all {bodies}"
    return None


def check_predictions(result: CheckResult, record: Record, manifest: Manifest) -> None:
    """Check accuracy, recall by class and confusion against the manifest's predictions and labels."""
    if record.accuracy is None or len(manifest.predictions) != record.data.clips:  # reported as a fault elsewhere
        return
    labels, classes, predictions = manifest.data.labels, manifest.data.classes, manifest.predictions
    if labels is None or classes is None:
        result.skip(RUN_FILE, "accuracy: the manifest has no labels")
        return
    outside = [x for x in (*labels, *predictions) if not 0 <= x < len(classes)]
    if outside:
        result.fault(RUN_FILE, f"class {outside[0]} in the manifest, which names {len(classes)}")
        return
    expected = accuracy_of(labels, predictions, classes)
    for name in Accuracy.model_fields:
        if not _same(getattr(record.accuracy, name), getattr(expected, name)):
            result.fault(RUN_FILE, f"accuracy.{name} does not follow from the manifest's predictions and labels")
    result.checked.append(
        f"{RUN_FILE}: accuracy and confusion from the predictions and labels of {counted(len(predictions), record.unit)}"
    )


def _shown(value: object) -> str:
    return f"{value:,.10g}" if isinstance(value, float) else str(value)


def _same(stated: object, expected: object) -> bool:
    """Return whether two values are equal up to float rounding; dictionaries are compared value by value."""
    if isinstance(stated, dict) and isinstance(expected, dict):
        return stated.keys() == expected.keys() and all(_same(stated[key], expected[key]) for key in stated)
    if isinstance(stated, float) or isinstance(expected, float):
        numbers = isinstance(stated, (int, float)) and isinstance(expected, (int, float))
        return numbers and isclose(stated, expected, rel_tol=ROUNDING, abs_tol=0.0)  # type: ignore[arg-type]
    return stated == expected
