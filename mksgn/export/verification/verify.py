"""The same clips through several executions of one file, compared with the reference execution of its NIR graph.

A quantised file's executions run freely: from the input on, not one decision may differ. Of an unquantised file torch is given the
reference's spikes and resets at every layer and step, so that a membrane which rounds across its threshold is counted once, and not
in what follows from it. Other simulators cannot be given them: there, the first difference must be such a rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import nir
import numpy as np
import torch
from torch import Tensor

from mksgn.export.errors import ExportError, ParityError
from mksgn.export.onnx import file as onnx_file
from mksgn.export.reference import execute as reference
from mksgn.export.verification import simulators
from mksgn.export.verification.folded_student import FoldedStudent
from mksgn.export.verification.parity import Parity, Rule, compare, with_margins
from mksgn.export.verification.simulators import Spikes
from mksgn.train.checkpoint import TrainedTeacher
from mksgn.train.neurons import LIF, lif_step
from mksgn.train.student import Student

BATCH = 16  # samples run at a time
LOGIT_CHANGE = 1e-4  # of the largest logit: a teacher has no spikes, its float32 sums round


def verify(
    graph: nir.NIRGraph,
    student: Student | None,
    inputs: np.ndarray,
    *,
    against: tuple[str, ...] = (),
    onnx: Path | None = None,
) -> list[Parity]:
    """Torch, then each simulator of `against`, with the reference execution of `graph`; inputs (L, 3 · streams, T, V).

    `student` is the trained one, which an unquantised file is compared with; a quantised file brings its own weights. `onnx` is the
    graph's ONNX file, which onnxruntime then runs. Raises ExportError for a simulator that cannot be asked.
    """
    simulators.check(against)
    steps, dt = int(graph.metadata["steps"]), float(graph.metadata["dt"])
    quantised = "quantization" in graph.metadata
    if not quantised and student is None:
        raise ExportError("an unquantised file is compared with its student; give the model.pt that it was made from")
    wanted, _ = reference_spikes(graph, inputs, steps, dt)
    if quantised:
        found = torch_spikes(FoldedStudent(graph), inputs)[0]
    else:
        assert student is not None
        found = torch_spikes(student, inputs, teacher_forced=wanted)[0]
    rules: dict[str, Rule] = {"torch": "exact" if quantised else "rounding"}
    executions = {"torch": found}
    for simulator in against:
        rules[simulator] = "exact" if quantised else "rounding, then free"
        executions[simulator] = simulators.spikes(simulator, graph, inputs, steps, dt, onnx=onnx)
    parities = []
    for name, found in executions.items():
        parity = replace(compare(f"{name} ↔ NIR reference", wanted, found), rule=rules[name])
        parities.append(_margins(parity, graph, inputs, wanted, found))
    return parities


def teacher_change(teacher: TrainedTeacher, onnx: Path, inputs: np.ndarray) -> tuple[float, int]:
    """Of a teacher's ONNX file against torch: the largest change of a logit, as a share of the largest, and equal predictions.

    Raises ParityError for a change above LOGIT_CHANGE.
    """
    with torch.no_grad():
        wanted = np.concatenate(
            [teacher.teacher(torch.from_numpy(inputs[i : i + BATCH])).numpy() for i in range(0, len(inputs), BATCH)]
        )
    found = onnx_file.execute(onnx, inputs)[1]["logits"]
    change = float(np.abs(wanted - found).max() / np.abs(wanted).max())
    if not change <= LOGIT_CHANGE:
        raise ParityError(
            f"{onnx}: a logit differs from torch's by {change:.1e} of the largest; allowed: {LOGIT_CHANGE}"
        )
    return change, int((wanted.argmax(1) == found.argmax(1)).sum())


def _margins(parity: Parity, graph: nir.NIRGraph, inputs: np.ndarray, wanted: Spikes, found: Spikes) -> Parity:
    """With the reference's membranes at the differences: at all of them where each must be near, else in the first layer's first sample."""
    steps, dt = int(graph.metadata["steps"]), float(graph.metadata["dt"])
    for layer in parity.layers:
        if layer.first is None or wanted[layer.layer].shape != found[layer.layer].shape:
            continue
        different = wanted[layer.layer] != found[layer.layer]
        samples = np.flatnonzero(different.reshape(len(inputs), -1).any(1))
        if parity.rule != "rounding":
            samples = samples[:1]
        margins = []
        for i in range(0, len(samples), BATCH):
            run = reference.execute(graph, inputs[samples[i : i + BATCH]], steps, dt, margins_of=layer.layer)
            assert run.margins is not None
            margins.append(run.margins.swapaxes(0, 1))
        parity = with_margins(parity, layer.layer, different[samples], np.concatenate(margins), samples)
    return parity


@torch.no_grad()
def torch_spikes(
    model: torch.nn.Module, inputs: np.ndarray, batch: int = BATCH, *, teacher_forced: Spikes | None = None
) -> tuple[Spikes, np.ndarray]:
    """Spikes (L, S, *shape) bool of each population, and logits (L, classes), of a student or a FoldedStudent.

    With `forced`, a student's populations decide each step for themselves, but reset by these spikes, and hand these on.
    """
    parts, logits = [], []
    model.eval()
    for i in range(0, len(inputs), batch):
        record: dict[str, Tensor] = {}
        x = torch.from_numpy(np.array(inputs[i : i + batch]))
        if teacher_forced is None:
            logits.append(model(x, record).numpy())
        else:
            assert isinstance(model, Student)
            given = {
                name: torch.from_numpy(s[i : i + batch]).transpose(0, 1).float() for name, s in teacher_forced.items()
            }
            with _teacher_forced(model, given, record):
                logits.append(model(x).numpy())
        parts.append({name: s.bool().transpose(0, 1).numpy() for name, s in record.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, np.concatenate(logits)


@contextmanager
def _teacher_forced(student: Student, forced: dict[str, Tensor], record: dict[str, Tensor]) -> Iterator[None]:
    """Make each population pass on and be reset by its `forced` spikes; its own decisions go into `record`."""

    def force(name: str) -> Callable[..., Tensor]:
        def hook(module: LIF, arguments: tuple[Tensor], spikes: Tensor) -> Tensor:
            record[name] = _decisions(arguments[0], module.tau, module.threshold, forced[name])
            return forced[name]

        return hook

    hooks = [module.register_forward_hook(force(name)) for name, module in student.neurons().items()]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def _decisions(current: Tensor, tau: float, threshold: Tensor, given: Tensor) -> Tensor:
    """What a population would decide at each step, had it been reset by `given`; both (S, L, …)."""
    v, decided = torch.zeros_like(current[0]), []
    for x, reset in zip(current, given, strict=True):
        decided.append(lif_step(x, v, tau, threshold)[0])
        _, h = lif_step(x, v, tau, float("inf"))
        v = h * (1 - reset)
    return torch.stack(decided)


def reference_spikes(
    graph: nir.NIRGraph, inputs: np.ndarray, steps: int, dt: float, batch: int = BATCH
) -> tuple[Spikes, Spikes]:
    """Spikes (L, S, *shape) bool of each population and outputs (L, S, *shape) of the NIR reference execution."""
    runs = [reference.execute(graph, inputs[i : i + batch], steps, dt) for i in range(0, len(inputs), batch)]

    def join(field: str) -> Spikes:
        return {
            name: np.concatenate([getattr(run, field)[name] for run in runs], axis=1).swapaxes(0, 1)
            for name in getattr(runs[0], field)
        }

    return join("spikes"), join("outputs")
