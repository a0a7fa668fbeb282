"""One benchmark run: execute the clips, count the events, price them, compare executions, and leave the run's folder."""

from __future__ import annotations

import platform
from pathlib import Path

import nir
import numpy as np

from mksgn.bench import claims, counters, energy_models, theory
from mksgn.bench.record import (
    RUN_FILE,
    Accuracy,
    Data,
    Limit,
    Mismatch,
    ModelFile,
    Parity,
    Placement,
    Record,
    Run,
    save,
)
from mksgn.deploy import compile_graph
from mksgn.deploy import record as deploy_record
from mksgn.deploy import run as run_program
from mksgn.deploy.chips import LOIHI2
from mksgn.deploy.clips import ClipInputs, clip_inputs
from mksgn.deploy.execution import Execution
from mksgn.deploy.passes.place import place
from mksgn.export import files, verify
from mksgn.export.errors import ParityError
from mksgn.export.metadata import json_of
from mksgn.export.parity import compare as compare_spikes
from mksgn.train import checkpoint
from mksgn.train.console import output
from mksgn.train.datasets import ClipSet
from mksgn.train.loop import predict, top1
from mksgn.train.transforms import lanes


def bench(
    model: Path,
    clips: ClipSet,
    out: Path,
    *,
    backend: str,
    precision: str,
    seed: int | None,
    compare: int | None = None,
) -> Record:
    """Run `clips` and write run.json, spikes.npz and manifest.json into `out`.

    A run in Lava is compared spike by spike with the emulator, and both with torch on the file's weights, on the first `compare`
    clips (None: all). Raises ParityError after everything is written, if a quantised file's spikes differ anywhere.
    """
    graph = files.read(model)
    program = compile_graph(graph, precision=precision)
    given = clip_inputs(graph, program, clips)
    output.print(f"running {len(clips)} clips ({len(given.inputs)} bodies) on {backend}, {precision} point")
    execution = run_program(program, given.inputs, backend=backend)
    predictions = given.predictions(execution)
    parity = _parity(graph, program, given, execution, len(clips) if compare is None else compare)
    rows = counters.layers(program, execution)
    totals = counters.totals(program, execution, rows, len(clips))
    energy = [energy_models.price(m, totals) for m in energy_models.known_models()]
    formula = theory.paper_formula(rows, clips=len(clips), steps=execution.steps)
    training = json_of(graph, "training") or {}
    parent = graph.metadata.get("parent")
    placed = place(program, LOIHI2)
    record = Record(
        model=ModelFile(file=model.name, sha256=checkpoint.sha256(model)),
        data=Data(source=clips.source, split=clips.split, clips=len(clips)),
        seed=seed,
        environment={**deploy_record.environment(), "platform": platform.platform()},
        parents=[parent] if parent else [],
        execution=Run(
            backend=backend,  # type: ignore[arg-type]
            precision=precision,  # type: ignore[arg-type]
            steps=execution.steps,
            latency_steps=execution.latency_steps,
            seconds=execution.seconds,
            clips_per_second=len(clips) / execution.seconds,
        ),
        accuracy=_accuracy(clips, predictions),
        layers=rows,
        totals=totals,
        energy=energy,
        claims=claims.evaluate(energy, formula.energy_mJ, str(training.get("preset", "custom"))),
        parity=parity,
        placement=Placement(
            chip=placed.chip.name,
            cores=placed.cores,
            chips=placed.chips,
            limits=[Limit(name=name, value=value, max=limit) for name, value, limit in placed.limits],
        ),
    )
    out.mkdir(parents=True, exist_ok=True)
    save(record, out / RUN_FILE)
    deploy_record.write_spikes(execution, out / "spikes.npz")
    facts = {
        "data": {
            "source": clips.source,
            "split": clips.split,
            "clips": [clip.name for clip in clips.clips],
            "seed": seed,
        },
        "execution": {"backend": backend, "precision": precision, "steps": execution.steps},
        "predictions": predictions.tolist(),
    }
    deploy_record.write_manifest(out, model=model, parents=record.parents, program=program, facts=facts)
    if parity is not None and parity.mismatches and json_of(graph, "quantization"):
        first = parity.first
        raise ParityError(
            f"{model}: {parity.mismatches} of {parity.decisions} decisions differ from {parity.against}, first in "
            f"{first.layer if first else '?'}; see {out / RUN_FILE}"
        )
    return record


def torch_accuracy(model: Path, clips: ClipSet) -> float | None:
    """Top-1 of the unquantised student in torch, where the file's parent, model.pt, lies beside it; None elsewhere."""
    parent = model.parent / "model.pt"
    wanted = files.read(model).metadata.get("parent")
    if not parent.is_file() or wanted is None or checkpoint.sha256(parent) != wanted:
        return None
    trained = checkpoint.load(parent)
    inputs, clip_of_lane = lanes(clips.clips, trained.normaliser)
    return top1(predict(trained.student, inputs, clip_of_lane, len(clips)), clips.labels)


def _accuracy(clips: ClipSet, predictions: np.ndarray) -> Accuracy:
    right, labels = predictions == clips.labels, clips.labels
    per_class = {
        name: float(right[labels == i].mean()) if (labels == i).any() else None for i, name in enumerate(clips.classes)
    }
    return Accuracy(top1=float(right.mean()), correct=int(right.sum()), per_class=per_class)


def _parity(graph: nir.NIRGraph, program, given: ClipInputs, execution: Execution, clips: int) -> Parity | None:
    """Spike by spike: the run against the emulator (for Lava), and against torch with the file's weights."""
    lanes = int((given.clip_of_lane < clips).sum())
    if lanes == 0:
        return None
    inputs = given.inputs[:lanes]
    found = {name: spikes[:lanes] for name, spikes in execution.spikes.items()}
    others: dict[str, dict[str, np.ndarray]] = {}
    if execution.backend == "lava":
        others["emulator"] = run_program(program, inputs, backend="emulator").spikes
    if graph.metadata.get("student") is not None:
        others["torch"] = verify.torch_spikes(verify.FoldedStudent(graph), np.ascontiguousarray(inputs[:, 0]))[0]
    if not others:
        return None
    decisions = mismatches = 0
    first: Mismatch | None = None
    for name, wanted in others.items():
        compared = compare_spikes(name, wanted, found)
        decisions += compared.decisions
        mismatches += compared.mismatches
        if compared.first is not None and first is None:
            place = compared.first
            first = Mismatch(layer=place.layer, clip=int(given.clip_of_lane[place.lane]), step=place.step)
    return Parity(against=", ".join(others), decisions=decisions, mismatches=mismatches, first=first)
