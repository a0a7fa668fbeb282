"""One benchmark run: execute the clips shard by shard, evaluate the sums, and write the run's folder."""

import hashlib
import sys
import time
from pathlib import Path

import numpy as np

from mksgn.bench import folder
from mksgn.bench.evaluation import EvaluationOptions, record_of
from mksgn.bench.manifest import verified
from mksgn.bench.numbers import counted
from mksgn.bench.progress import Identity, Progress, check_same
from mksgn.bench.record import RUN_FILE, Record
from mksgn.bench.record_io import load, save
from mksgn.bench.report.facts import PRECISIONS, REPORT_FILES
from mksgn.bench.schemas import StrictModel
from mksgn.bench.shards import Network, Settings, run_shard, shards, some
from mksgn.common.console import output, track
from mksgn.common.errors import BadInputError
from mksgn.deploy import run_folder
from mksgn.deploy.execution import Execution
from mksgn.export.errors import ParityError
from mksgn.export.graph.metadata import input_normaliser, json_of
from mksgn.train.datasets import ClipSet
from mksgn.train.streams import resize
from mksgn.train.transforms import digest

LINE_EVERY_S = 30.0  # between lines of progress where there is no terminal for a progress bar


def bench(
    model: Path,
    clips: ClipSet,
    out: Path,
    settings: Settings,
    *,
    seed: int | None,
    options: EvaluationOptions | None = None,
    resume: bool = False,
    shard: int | None = None,
) -> Record:
    """Run clips through a NIR file and write the run's folder.

    The folder then holds run.json, spikes.npz, run.log, the reports and manifest.json. A run in
    Lava is compared spike by spike with the emulator, and both backends with torch on the file's
    weights.

    Args:
        model: The NIR file.
        clips: The clips to run.
        out: Folder of the run; created if it does not exist.
        settings: How the clips are executed.
        seed: Seed of synthetic clips, for the record.
        options: Chip, energy models and published figures; None: the default ones.
        resume: Continue the run in `out`, or return its record if it is finished.
        shard: Clips that are committed together; None: what the backend runs at once.

    Raises:
        BadInputError: The file cannot be compiled, or `out` holds a different run from the one to be
            resumed.
        ParityError: Spikes of a quantised file differ anywhere. Everything is written by then.
    """
    options = options or EvaluationOptions()
    network = Network.read(model, settings.precision)
    size = shard or network.shard_size(settings.backend)
    identity = _identity(network, clips, settings, options, seed, size)
    out.mkdir(parents=True, exist_ok=True)
    if resume and _finished(out, identity, clips):
        output.print(f"{out}: finished already")
        record = load(out)
    else:
        progress = _begin(out, identity, clips, settings.repeats, resume)
        _execute(network, clips, out, settings, progress, size)
        record = finish(network, clips, out, settings, progress, seed=seed, options=options)
    _check_parity(network, record, out)
    return record


def finish(
    network: Network,
    clips: ClipSet,
    out: Path,
    settings: Settings,
    progress: Progress,
    *,
    seed: int | None,
    options: EvaluationOptions,
    reports: bool = True,
) -> Record:
    """Evaluate a run whose clips are all executed, and write its folder.

    Args:
        network: The compiled network.
        clips: The clips of the run.
        out: Folder of the run.
        settings: How the clips were executed.
        progress: Sums over all shards.
        seed: Seed of synthetic clips, for the record.
        options: Chip, energy models and published figures.
        reports: Write report.html and report.md as well.
    """
    execution = Execution(
        settings.backend,
        settings.precision,
        progress.bodies,
        network.steps,
        network.program.latency,
        counters=progress.counters,
        spikes=progress.first_trains(),
        seconds=float(np.median(progress.seconds)),
    )
    record = record_of(network, clips, settings, progress, execution, seed=seed, options=options)
    save(record, out / RUN_FILE)
    run_folder.write_spikes(execution, out / run_folder.SPIKES_FILE, **_first_joints(network, clips))
    folder.log(out, f"finished: {counted(len(clips), 'clip')}")
    run_folder.write_manifest(
        out,
        folder.RUN_FILES,
        model=network.model,
        parents=record.parents,
        program=network.program,
        facts=_manifest_facts(network, clips, settings, progress, seed),
    )
    (out / folder.PROGRESS_FILE).unlink(missing_ok=True)
    if reports:
        folder.write_reports_if_possible(out)
    return record


def labels_of(clips: ClipSet) -> Identity:
    """Describe a set of clips without reading a clip: their number and the sha256 of the labels."""
    labels = np.asarray(clips.labels, dtype=np.int64)
    return {"clips": len(clips), "labels": hashlib.sha256(labels.tobytes()).hexdigest()}


def _identity(
    network: Network, clips: ClipSet, settings: Settings, options: EvaluationOptions, seed: int | None, size: int
) -> Identity:
    """Everything that a count, a comparison, a time or a verdict can depend on."""
    return {
        "model": network.sha256,
        "data": clips.source,
        "split": clips.split,
        "seed": seed,
        **labels_of(clips),
        "backend": settings.backend,
        "precision": settings.precision,
        "compare": settings.compare,
        "repeats": settings.repeats,
        "shard": size,
        "environment": run_folder.environment(),
        "chip": options.chip,
        "energy_models": {model.name: _digest(model) for model in options.models},
        "claims": {figure.name: _digest(figure) for figure in options.claims},
    }


def _digest(model: StrictModel) -> str:
    return hashlib.sha256(model.model_dump_json().encode()).hexdigest()


def _finished(out: Path, identity: Identity, clips: ClipSet) -> bool:
    """Whether the folder holds this very run. Raises BadInputError where it holds another, or was changed."""
    manifest = verified(out)
    if manifest is None:
        return False
    check_same(out, manifest.run, identity)
    _check_clips(out, clips, manifest.data.digests)
    # the run may have been killed between its manifest and its reports
    (out / folder.PROGRESS_FILE).unlink(missing_ok=True)
    if not set(REPORT_FILES) <= set(manifest.files):
        folder.write_reports_if_possible(out)
    return True


def _check_clips(out: Path, clips: ClipSet, digests: list[str]) -> None:
    """Compare the joints of the first and the last executed clip: other data can have equal labels."""
    done = [index for index, known in enumerate(digests) if known]
    for index in sorted({done[0], done[-1]} if done else set()):
        if digest(clips.clips[index]).hex() != digests[index]:
            raise BadInputError(
                f"{out}: clip {index} has changed since it was run; give the same data to --resume, or start "
                "over in another folder (-o)"
            )


def _begin(out: Path, identity: Identity, clips: ClipSet, repeats: int, resume: bool) -> Progress:
    path = out / folder.PROGRESS_FILE
    if not (resume and path.is_file()):
        return Progress(identity, len(clips), repeats)
    progress = Progress.load(path)
    check_same(out, progress.identity, identity)
    _check_clips(out, clips, progress.digests)
    note = f"resuming: {progress.done.sum()} of {len(clips)} clips are done"
    output.print(f"{out}: {note}")
    folder.log(out, note)
    return progress


def _execute(network: Network, clips: ClipSet, out: Path, settings: Settings, progress: Progress, size: int) -> None:
    """Run the clips that are missing, and save the progress after every shard."""
    remaining = shards(~progress.done, size)
    count = sum(map(len, remaining))
    if not remaining:
        return
    output.print(
        f"running {counted(count, 'clip')} on {settings.backend}, {PRECISIONS[settings.precision]}, {size} at a time"
    )
    last_line = time.monotonic()
    for which in track(remaining, count, "clips", len):
        shard = run_shard(network, some(clips, which), which.start, settings)
        if not progress.done.any():  # the clips can be run, so an earlier run in this folder can go
            folder.clear(out)
            folder.log(out, "begun: " + ", ".join(f"{name} {value}" for name, value in progress.identity.items()))
        progress.add(shard)
        progress.save(out / folder.PROGRESS_FILE)
        folder.log(out, f"clips {which.start} to {which.stop - 1} done")
        if not sys.stdout.isatty() and time.monotonic() - last_line > LINE_EVERY_S:
            last_line = time.monotonic()
            output.print(f"{progress.done.sum()} of {len(clips)} clips")


def _first_joints(network: Network, clips: ClipSet) -> dict[str, np.ndarray]:
    """Joints of the first clip's first body, resampled to the frames that the network sees: (T, V, 3)."""
    normaliser = input_normaliser(network.graph)
    if normaliser is None:
        return {}
    return {"sample/joints": resize(clips.clips[0].joints, normaliser.frames)[0].astype(np.float32)}


def _manifest_facts(
    network: Network, clips: ClipSet, settings: Settings, progress: Progress, seed: int | None
) -> dict[str, object]:
    return {
        "data": {
            "source": clips.source,
            "split": clips.split,
            "graph": clips.graph,
            "classes": list(clips.classes),
            "clips": progress.names,
            "digests": progress.digests,
            "notes": list(clips.notes),
            "labels": clips.labels.tolist(),
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


def _check_parity(network: Network, record: Record, out: Path) -> None:
    """Raises ParityError for a quantised file whose spikes differ anywhere."""
    parity = record.parity
    if parity is None or not parity.mismatches or json_of(network.graph, "quantization") is None:
        return
    raise ParityError(
        f"{network.model}: {parity.mismatches} of {parity.decisions} decisions differ from {parity.against}, first in "
        f"{parity.first.layer if parity.first else '?'}; see {out / RUN_FILE}"
    )
