"""One benchmark run: execute the samples shard by shard, evaluate the sums, and write the run's folder."""

import hashlib
import time
from collections.abc import Iterable
from pathlib import Path

import nir
import numpy as np

from mksgn.bench import folder, run_files
from mksgn.bench.evaluation import EvaluationOptions, class_names, record_of
from mksgn.bench.manifest import verified
from mksgn.bench.progress import Identity, Progress, check_digests, check_same
from mksgn.bench.record import Record
from mksgn.bench.record_io import load, save
from mksgn.bench.run_files import REPORT_FILES, RUN_FILE
from mksgn.bench.samples import SampleSet, as_samples
from mksgn.bench.shards import Network, Settings, run_shard, shards
from mksgn.common.console import output
from mksgn.common.progress import track
from mksgn.common.schemas import StrictModel
from mksgn.common.words import counted
from mksgn.common.writing import write_bytes
from mksgn.deploy import run_folder
from mksgn.deploy.choices import PRECISION_TITLES
from mksgn.deploy.conventions import conventions
from mksgn.deploy.decode import Decoding
from mksgn.deploy.execution import Execution
from mksgn.deploy.placement.chips import CHIPS, Chip
from mksgn.deploy.run_files import SPIKES_FILE
from mksgn.export.errors import ParityError
from mksgn.export.graph import files
from mksgn.export.graph.arrays import Arrays
from mksgn.export.graph.metadata import json_of
from mksgn.export.quantization.any_graph import quantize_any
from mksgn.train.checkpoint import sha256
from mksgn.train.datasets import ClipSet
from mksgn.train.datasets.arrays import ArraySet

SAVE_SHARE = 10  # saving takes at most 1 / SAVE_SHARE of the time: several shards of milliseconds are saved at once
QUANTIZED_FILE = "quantized.nir"  # in the run's folder: the quantised form of a file that was not quantised


def bench(
    model: Path,
    data: SampleSet | ClipSet | ArraySet,
    out: Path,
    settings: Settings,
    *,
    seed: int | None,
    options: EvaluationOptions | None = None,
    resume: bool = False,
    overwrite: bool = False,
    shard: int | None = None,
    calibration: Arrays | None = None,
    steps: int | None = None,
) -> Record:
    """Run samples through a NIR file and write the run's folder.

    The folder then holds run.json, spikes.npz, run.log, the reports and manifest.json. A run in Lava is compared spike
    by spike with the emulator and, for a student, both backends with torch on its weights. A file quantised here is
    written into the folder too, and is the run's model; the file that was given is its parent.

    Args:
        model: The NIR file.
        data: The samples to run: clips, or labelled arrays.
        out: Folder of the run; created if it does not exist.
        settings: How the samples are executed.
        seed: Seed of synthetic clips, for the record.
        options: Chip, energy models and published figures; None: the default ones.
        resume: Continue the run in `out`, or return its record if it is finished.
        overwrite: Replace the run in `out`, which stays until this one is complete.
        shard: Samples that are saved together; None: what the backend runs at once.
        calibration: Samples for quantising a file that is not quantised, for fixed point.
        steps: Time steps for which that file is quantised; None: what the file says, else the calibration's.

    Raises:
        BadInputError: The file cannot be compiled; `out` holds another run than the one to be resumed, or one that is
            not to be replaced; or another process writes into it.
        ParityError: Any spikes of a quantised file differ. Everything has been written by then.
    """
    run_files.RUN.check(out, resume=resume, overwrite=overwrite)
    options, samples = options or EvaluationOptions(), as_samples(data)
    network = compiled_file(model, settings, calibration, steps)
    samples = samples.bound(network.program)
    network = network.presenting(samples)
    class_names(network, samples, settings)  # labels that do not fit are refused before anything runs
    for line in [] if network.is_student else conventions(files.read(model), settings.compiling):
        output.print(line)
    size = shard or network.shard_size(settings.backend)
    identity = _identity(network, samples, settings, options, seed, size)
    with run_files.RUN.writing(out, resume=resume, overwrite=overwrite, old=run_folder.listed) as place:
        _check_model(network, out, overwrite=overwrite)
        if resume and _finished(place, out, identity, samples):
            output.print(f"{out}: finished already")
            record = load(place)
        else:
            progress = _begin(place, out, identity, samples, settings.repeats, resume)
            _execute(network, samples, place, settings, progress, size)
            record = finish(network, samples, place, settings, progress, seed=seed, options=options)
            folder.write_reports_if_possible(place, out)
    check_parity(network, record, out / RUN_FILE)
    return record


def _check_model(network: Network, out: Path, *, overwrite: bool) -> None:
    if network.content is not None and not overwrite:
        folder.check_model(out, network.model.name, network.sha256)


def compiled_file(model: Path, settings: Settings, calibration: Arrays | None, steps: int | None) -> Network:
    """Compile a file. One that is to be quantised becomes a new network, whose file the run writes."""
    if calibration is None or settings.precision != "fixed":
        return Network.read(model, settings.precision, settings.compiling)
    graph = files.read(model)
    if json_of(graph, "quantization") is not None:
        output.print(f"{model} is quantised already: calibration is not used")
        return Network.read(model, settings.precision, settings.compiling)
    quantised = quantised_graph(graph, calibration, settings, steps=steps, parent=sha256(model))
    return Network.of(quantised, QUANTIZED_FILE, settings.precision, settings.compiling)


def quantised_graph(
    graph: nir.NIRGraph, calibration: Arrays, settings: Settings, *, steps: int | None = None, parent: str | None = None
) -> nir.NIRGraph:
    """Quantise a graph to 8 bits; its metadata name the parent by the sha256 of its file."""
    quantised = quantize_any(graph, 8, calibration, **settings.compiling.options, steps=steps)
    if parent is not None:
        quantised.metadata["parent"] = parent
    return quantised


def execution_of(network: Network, settings: Settings, progress: Progress) -> Execution:
    """Return a run whose samples are all executed as one execution."""
    return Execution(
        settings.backend,
        settings.precision,
        progress.bodies,
        network.steps,
        network.program.latency,
        counters=progress.counters,
        spikes=progress.first_trains(),
        seconds=float(np.median(progress.seconds)),
    )


def finish(
    network: Network,
    samples: SampleSet,
    out: Path,
    settings: Settings,
    progress: Progress,
    *,
    seed: int | None,
    options: EvaluationOptions,
) -> Record:
    """Evaluate a run whose samples are all executed, and write its folder without the reports.

    Args:
        network: The compiled network.
        samples: The samples of the run.
        out: Folder of the run.
        settings: How the samples were executed.
        progress: Sums over all shards.
        seed: Seed of synthetic clips, for the record.
        options: Chip, energy models and published figures.
    """
    execution = execution_of(network, settings, progress)
    record = record_of(network, samples, settings, progress, execution, seed=seed, options=options)
    if network.content is not None:
        write_bytes(out / network.model.name, network.content)
    save(record, out / RUN_FILE)
    run_folder.write_spikes(execution, out / SPIKES_FILE, **samples.drawn(network.graph))
    folder.log(out, f"finished: {counted(len(samples), record.unit)}")
    run_folder.write_manifest(
        out,
        run_files.RUN_FILES,
        model=network.model,
        model_sha256=network.sha256,
        parents=record.parents,
        program=network.program,
        facts=_manifest_facts(network, samples, settings, progress, seed),
    )
    (out / run_files.PROGRESS_FILE).unlink(missing_ok=True)
    return record


def _identity(
    network: Network, samples: SampleSet, settings: Settings, options: EvaluationOptions, seed: int | None, size: int
) -> Identity:
    """Return everything that a count, a comparison, a time or a verdict can depend on."""
    return {
        "model": network.sha256,
        "data": samples.source,
        "split": samples.split,
        "seed": seed,
        **samples.identity(),
        "backend": settings.backend,
        "precision": settings.precision,
        "compare": settings.compare,
        "repeats": settings.repeats,
        "shard": size,
        **({"steps": network.presented} if network.presented != network.program.steps else {}),
        **({"decode": str(settings.decoding)} if settings.decoding != Decoding() else {}),
        **settings.compiling.departures(),
        "environment": run_folder.environment(),
        "chip": options.chip,
        **limits_identity([options.placed_on]),
        "energy_models": {model.name: _digest(model) for model in options.models},
        "claims": {figure.name: _digest(figure) for figure in options.claims},
        "timing_models": {model.name: _digest(model) for model in options.timing_models},
        **({"place": "balanced"} if options.balance else {}),
    }


def _digest(model: StrictModel) -> str:
    return hashlib.sha256(model.model_dump_json().encode()).hexdigest()


def limits_identity(chips: Iterable[Chip]) -> Identity:
    """Return the limits of chips that come from a file: another file may give a chip of that name other limits."""
    added = {chip.name: hashlib.sha256(repr(chip).encode()).hexdigest() for chip in chips if chip not in CHIPS.values()}
    return {"chip_limits": added} if added else {}


def _finished(place: Path, out: Path, identity: Identity, samples: SampleSet) -> bool:
    """Return whether the folder holds this run, finished. Raises BadInputError if it holds another or was changed."""
    manifest = verified(place)
    if manifest is None:
        return False
    check_same(out, manifest.run, identity)
    check_digests(out, samples, manifest.data.digests)
    # the run may have been killed between its manifest and its reports
    (place / run_files.PROGRESS_FILE).unlink(missing_ok=True)
    if not set(REPORT_FILES) <= set(manifest.files):
        folder.write_reports_if_possible(place, out)
    return True


def _begin(place: Path, out: Path, identity: Identity, samples: SampleSet, repeats: int, resume: bool) -> Progress:
    path = place / run_files.PROGRESS_FILE
    if not (resume and path.is_file()):
        return Progress(identity, len(samples), repeats)
    progress = Progress.load(path)
    check_same(out, progress.identity, identity)
    check_digests(out, samples, progress.digests)
    note = f"resuming: {progress.done.sum()} of {len(samples)} clips are done"
    output.print(f"{out}: {note}")
    folder.log(place, note)
    return progress


def _execute(
    network: Network, samples: SampleSet, out: Path, settings: Settings, progress: Progress, size: int
) -> None:
    """Run the missing samples, and save the progress, which takes at most a tenth of the time."""
    remaining = shards(~progress.done, size)
    count, unit = sum(map(len, remaining)), "clip" if network.is_student else "sample"
    if not remaining:
        return
    output.print(
        f"running {counted(count, unit)} on {settings.backend}, {PRECISION_TITLES[settings.precision]}, {size} at a time"
    )
    saved = cost = 0.0  # when progress was last saved, and how long that took, which grows with the number of samples
    for which in track(remaining, count, f"{unit}s", len):
        shard = run_shard(network, samples.take(which), which.start, settings)
        if not progress.done.any():
            folder.log(out, "begun: " + ", ".join(f"{name} {value}" for name, value in progress.identity.items()))
        progress.add(shard)
        if progress.complete or time.monotonic() - saved >= SAVE_SHARE * cost:
            begun = time.monotonic()
            progress.save(out / run_files.PROGRESS_FILE)
            saved = time.monotonic()
            cost = saved - begun
        folder.log(out, f"{unit}s {which.start} to {which.stop - 1} done")


def _manifest_facts(
    network: Network, samples: SampleSet, settings: Settings, progress: Progress, seed: int | None
) -> dict[str, object]:
    return {
        "data": {
            "source": samples.source,
            "split": samples.split,
            **samples.facts(),
            "classes": list(class_names(network, samples, settings)),
            "clips": progress.names,
            "digests": progress.digests,
            "notes": list(samples.notes),
            "labels": None if samples.labels is None else samples.labels.tolist(),
            "seed": seed,
        },
        "run": progress.identity,
        "execution": {
            "backend": settings.backend,
            "precision": settings.precision,
            "steps": network.steps,
            "seconds": progress.seconds.tolist(),
        },
        "predictions": progress.predictions.tolist(),
    }


def check_parity(network: Network, record: Record, where: object) -> None:
    """Raise ParityError if any spikes of a quantised network differ; `where` names the record's file."""
    parity = record.parity
    if parity is None or not parity.faults or not network.quantised:
        return
    raise ParityError(
        f"{network.model}: {parity.mismatches} of {parity.decisions} decisions differ from {parity.against}, first in "
        f"{parity.first.layer if parity.first else '?'}; see {where}"
    )
