"""One benchmark run: execute the clips shard by shard, then count, price and judge, and leave the run's folder."""

from __future__ import annotations

import hashlib
import platform
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from mksgn.bench import counters, energy_models, folder, gcn
from mksgn.bench.claims import Published, published_claims
from mksgn.bench.energy_models import EnergyModel
from mksgn.bench.judged import judged
from mksgn.bench.manifest import verified
from mksgn.bench.progress import Identity, Progress, check_same
from mksgn.bench.record import (
    RUN_FILE,
    Accuracy,
    Data,
    Limit,
    Mismatch,
    ModelFile,
    Parity,
    Part,
    Placement,
    Record,
    Run,
    load,
    save,
)
from mksgn.bench.report.facts import REPORT_FILES
from mksgn.bench.shards import Network, Settings, run_shard, shards, some
from mksgn.common.console import output, track
from mksgn.common.errors import BadInputError
from mksgn.deploy import run_folder as deploy_record
from mksgn.deploy.execution import Execution
from mksgn.deploy.placement.chips import chip_named
from mksgn.deploy.placement.place import place
from mksgn.export.errors import ParityError
from mksgn.export.graph import files
from mksgn.export.graph.metadata import input_normaliser, json_of
from mksgn.train import checkpoint
from mksgn.train.datasets import ClipSet
from mksgn.train.loop import predict, top1
from mksgn.train.streams import resize
from mksgn.train.transforms import body_inputs, digest

LINE_EVERY_S = 30.0  # where no progress bar can be shown
TORCH_CLIPS = 256  # at a time: a data set may be larger than the memory


@dataclass(frozen=True)
class Judges:
    """What a run is held against: a chip's cores, price lists, published figures; by default all that are known."""

    chip: str = "loihi2"
    models: list[EnergyModel] = field(default_factory=energy_models.known_models)
    claims: list[Published] = field(default_factory=published_claims)


def bench(
    model: Path,
    clips: ClipSet,
    out: Path,
    settings: Settings,
    *,
    seed: int | None,
    judges: Judges | None = None,
    resume: bool = False,
    shard: int | None = None,
) -> Record:
    """Run `clips` and leave run.json, spikes.npz, run.log, the reports and manifest.json in `out`.

    `shard`: clips that are committed together. With `resume` what lies in `out` goes on, or is given back if it is finished; a run of
    anything else there is refused with BadInputError. A run in Lava is compared spike by spike with the emulator, and both with torch
    on the file's weights. Raises ParityError after everything is written, if a quantised file's spikes differ anywhere.
    """
    judges = judges or Judges()
    network = Network.read(model, settings.precision)
    size = shard or network.shard_size(settings.backend)
    identity = identity_of(network, clips, settings, seed, size) | {
        "chip": judges.chip,
        "energy_models": {model.name: _digest(model) for model in judges.models},
        "claims": {figure.name: _digest(figure) for figure in judges.claims},
    }
    out.mkdir(parents=True, exist_ok=True)
    if resume and _finished(out, identity, clips):
        output.print(f"{out}: finished already")
        record = load(out)
    else:
        progress = _begin(out, identity, clips, settings.repeats, resume)
        _execute(network, clips, out, settings, progress, size)
        record = finish(network, clips, out, settings, progress, seed=seed, judges=judges)
    check_parity(network, record, out)
    return record


def check_parity(network: Network, record: Record, out: Path) -> None:
    """Raises ParityError for a quantised file whose spikes differ anywhere."""
    parity = record.parity
    if parity is None or not parity.mismatches or json_of(network.graph, "quantization") is None:
        return
    raise ParityError(
        f"{network.model}: {parity.mismatches} of {parity.decisions} decisions differ from {parity.against}, first in "
        f"{parity.first.layer if parity.first else '?'}; see {out / RUN_FILE}"
    )


def identity_of(network: Network, clips: ClipSet, settings: Settings, seed: int | None, size: int) -> Identity:
    """All that a count, a comparison or a time can depend on."""
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
        "environment": deploy_record.environment(),
    }


def labels_of(clips: ClipSet) -> Identity:
    """What a set says of itself without reading a clip."""
    labels = np.asarray(clips.labels, dtype=np.int64)
    return {"clips": len(clips), "labels": hashlib.sha256(labels.tobytes()).hexdigest()}


def finish(
    network: Network,
    clips: ClipSet,
    out: Path,
    settings: Settings,
    progress: Progress,
    *,
    seed: int | None,
    judges: Judges,
    reports: bool = True,
) -> Record:
    """Everything that follows from a run whose clips are all done. With the manifest it is finished; the reports say what it says."""
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
    record = record_of(network, clips, settings, progress, execution, seed=seed, judges=judges)
    save(record, out / RUN_FILE)
    deploy_record.write_spikes(execution, out / deploy_record.SPIKES_FILE, **_sample(network, clips))
    folder.log(out, f"finished: {len(clips)} clips")
    facts = {
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
    deploy_record.write_manifest(
        out, folder.RUN_FILES, model=network.model, parents=record.parents, program=network.program, facts=facts
    )
    (out / folder.PROGRESS_FILE).unlink(missing_ok=True)
    if reports:
        folder.write_reports_if_possible(out)
    return record


def record_of(
    network: Network,
    clips: ClipSet,
    settings: Settings,
    progress: Progress,
    execution: Execution,
    *,
    seed: int | None,
    judges: Judges,
) -> Record:
    """run.json of a finished run."""
    placed = place(network.program, chip_named(judges.chip))
    rows = counters.layers(network.program, execution, placed)
    totals = counters.totals(network.program, execution, rows, len(clips))
    parent = network.graph.metadata.get("parent")
    counted = Record(
        model=ModelFile(file=network.model.name, sha256=network.sha256),
        data=Data(source=clips.source, split=clips.split, clips=len(clips)),
        seed=seed,
        environment={**deploy_record.environment(), "platform": platform.platform()},
        parents=[parent] if parent else [],
        execution=Run(
            backend=settings.backend,
            precision=settings.precision,
            steps=execution.steps,
            latency_steps=execution.latency_steps,
            seconds=execution.seconds,
            clips_per_second=len(clips) / execution.seconds,
            repeats=settings.repeats,
            seconds_min=float(progress.seconds.min()),
            seconds_max=float(progress.seconds.max()),
        ),
        accuracy=_accuracy(clips, progress.predictions),
        layers=rows,
        totals=totals,
        energy=[],
        claims=[],
        parity=_parity(network, progress),
        placement=Placement(
            chip=placed.chip.name,
            cores=placed.cores,
            chips=placed.chips,
            limits=[Limit(name=name, value=value, max=limit) for name, value, limit in placed.limits],
        ),
        gcn=gcn.gcn_of(network.graph, progress.bodies / len(clips)),
    )
    return judged(counted, judges.models, judges.claims)


def torch_accuracy(model: Path, clips: ClipSet) -> float | None:
    """Top-1 of the unquantised student in torch, where the file's parent, model.pt, lies beside it; None elsewhere."""
    parent = model.parent / "model.pt"
    wanted = files.read(model).metadata.get("parent")
    if not parent.is_file() or wanted is None or checkpoint.sha256(parent) != wanted:
        return None
    trained = checkpoint.load(parent)
    predictions = []
    for which in shards(np.ones(len(clips), dtype=bool), TORCH_CLIPS):
        inputs, clip_of_body = body_inputs(clips.clips[which.start : which.stop], trained.normaliser)
        predictions.append(predict(trained.student, inputs, clip_of_body, len(which)))
    return top1(torch.cat(predictions), clips.labels)


def _finished(out: Path, identity: Identity, clips: ClipSet) -> bool:
    """Whether the folder holds this very run; raises BadInputError where it holds another, or was changed."""
    manifest = verified(out)
    if manifest is None:
        return False
    check_same(out, manifest.run, identity)
    _check_clips(out, clips, manifest.data.digests)
    # it may have been killed after the manifest
    (out / folder.PROGRESS_FILE).unlink(missing_ok=True)
    if not set(REPORT_FILES) <= set(manifest.files):
        folder.write_reports_if_possible(out)
    return True


def _check_clips(out: Path, clips: ClipSet, digests: list[str]) -> None:
    """The first and the last clip that were run must be what is there now: two folders can hold as many clips with the same labels."""
    done = [index for index, found in enumerate(digests) if found]
    for index in sorted({done[0], done[-1]} if done else set()):
        if digest(clips.clips[index]).hex() != digests[index]:
            raise BadInputError(
                f"{out}: clip {index} has other joints than when it was run; give the same data to --resume, or start anew in another "
                "folder (-o)"
            )


def _digest(part: Part) -> str:
    return hashlib.sha256(part.model_dump_json().encode()).hexdigest()


def _begin(out: Path, identity: Identity, clips: ClipSet, repeats: int, resume: bool) -> Progress:
    path = out / folder.PROGRESS_FILE
    if resume and path.is_file():
        progress = Progress.load(path)
        check_same(out, progress.identity, identity)
        _check_clips(out, clips, progress.digests)
        note = f"going on: {progress.done.sum()} of {len(clips)} clips are done"
        output.print(f"{out}: {note}")
        folder.log(out, note)
        return progress
    return Progress(identity, len(clips), repeats)


def _execute(network: Network, clips: ClipSet, out: Path, settings: Settings, progress: Progress, size: int) -> None:
    left = shards(~progress.done, size)
    count = sum(map(len, left))
    if not left:
        return
    output.print(f"running {count} clips on {settings.backend}, {settings.precision} point, {size} at a time")
    said = time.monotonic()
    for which in track(left, count, "clips", len):
        shard = run_shard(network, some(clips, which), which.start, settings)
        if not progress.done.any():  # it can be run: now what was here before makes room
            folder.clear(out)
            folder.log(out, "begun: " + ", ".join(f"{name} {value}" for name, value in progress.identity.items()))
        progress.add(shard)
        progress.save(out / folder.PROGRESS_FILE)
        folder.log(out, f"clips {which.start} to {which.stop - 1} done")
        if not sys.stdout.isatty() and time.monotonic() - said > LINE_EVERY_S:
            said = time.monotonic()
            output.print(f"{progress.done.sum()} of {len(clips)} clips")


def _sample(network: Network, clips: ClipSet) -> dict[str, np.ndarray]:
    """Joints of the first body as the network saw them, frame for frame: (T, V, 3)."""
    normaliser = input_normaliser(network.graph)
    if normaliser is None:
        return {}
    return {"sample/joints": resize(clips.clips[0].joints, normaliser.frames)[0].astype(np.float32)}


def _accuracy(clips: ClipSet, predictions: np.ndarray) -> Accuracy:
    right, labels = predictions == clips.labels, clips.labels
    per_class = {
        name: float(right[labels == i].mean()) if (labels == i).any() else None for i, name in enumerate(clips.classes)
    }
    confusion = np.zeros((len(clips.classes), len(clips.classes)), dtype=np.int64)
    np.add.at(confusion, (labels, predictions), 1)
    return Accuracy(
        top1=float(right.mean()), correct=int(right.sum()), per_class=per_class, confusion=confusion.tolist()
    )


def _parity(network: Network, progress: Progress) -> Parity | None:
    compared = progress.compared
    if not compared.decisions:
        return None
    first = None
    if compared.first is not None:
        _, layer, clip, step = compared.first
        names = [*(p.name for p in network.program.populations), "a population that the program lacks"]
        first = Mismatch(layer=names[layer], clip=clip, step=step)
    return Parity(
        against=", ".join(compared.against), decisions=compared.decisions, mismatches=compared.mismatches, first=first
    )
