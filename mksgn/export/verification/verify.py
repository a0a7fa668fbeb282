"""The comparison of several executions of one file with its reference execution.

The executions of a quantised file run freely: not one decision may differ. For an unquantised file
torch is teacher-forced: every population passes on, and is reset by, the spikes of the reference.
A membrane potential that rounds across its threshold is then counted once, without its
consequences. Other simulators cannot be forced: there the first difference must be such a rounding.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import nir
import numpy as np
import torch
from torch import Tensor

from mksgn.common.progress import track
from mksgn.export.errors import ExportError, ParityError
from mksgn.export.onnx import file as onnx_file
from mksgn.export.reference import execute as reference
from mksgn.export.verification import simulators
from mksgn.export.verification.folded_student import FoldedStudent
from mksgn.export.verification.parity import LayerParity, Parity, Rule, compare, with_margins
from mksgn.export.verification.simulators import Spikes
from mksgn.train.checkpoint import TrainedTeacher
from mksgn.train.neurons import LIF, Current, lif_step, summed
from mksgn.train.student import Student

BATCH = 16  # samples that run at a time
LOGIT_CHANGE = 1e-4  # allowed, relative to the largest logit: a teacher's float32 sums are rounded


def verify(
    graph: nir.NIRGraph,
    student: Student | None,
    inputs: np.ndarray,
    *,
    against: tuple[str, ...] = (),
    onnx: Path | None = None,
) -> list[Parity]:
    """Compare torch, then each simulator, with the reference execution of a graph.

    Args:
        graph: The graph as it was read from its file.
        student: The trained student, which stands for torch if the graph is unquantised. A quantised
            graph brings its own weights.
        inputs: (L, 3 · streams, T, V).
        against: Names of simulators.
        onnx: The graph's ONNX file, if written: onnxruntime then runs that file.

    Raises:
        ExportError: A simulator cannot run the graph.
    """
    simulators.check(against)
    steps, dt = int(graph.metadata["steps"]), float(graph.metadata["dt"])
    quantised = "quantization" in graph.metadata
    if not quantised and student is None:
        raise ExportError("an unquantised file is compared with its student; give the model.pt that it was made from")
    expected, _ = reference_spikes(graph, inputs, steps, dt)
    if quantised:
        in_torch, _ = torch_spikes(FoldedStudent(graph), inputs)
    else:
        assert student is not None
        in_torch, _ = torch_spikes(student, inputs, teacher_forced=expected)
    executions = {"torch": in_torch}
    for simulator in against:
        executions[simulator] = simulators.spikes(simulator, graph, inputs, steps, dt, onnx=onnx)
    parities = []
    for name, actual in executions.items():
        rule: Rule = "exact" if quantised else "rounding" if name == "torch" else "rounding, then free"
        parity = compare(f"{name} ↔ NIR reference", expected, actual)
        layers = [_margins(layer, rule, graph, inputs, expected, actual) for layer in parity.layers]
        parities.append(replace(parity, layers=layers, rule=rule))
    return parities


def teacher_change(teacher: TrainedTeacher, onnx: Path, inputs: np.ndarray) -> tuple[float, int]:
    """Compare a teacher's ONNX file with torch.

    Returns:
        The largest change of a logit relative to the largest logit, and the number of inputs with
        the same prediction.

    Raises:
        ParityError: The change exceeds LOGIT_CHANGE.
    """
    with torch.no_grad():
        batches = (torch.from_numpy(inputs[i : i + BATCH]) for i in range(0, len(inputs), BATCH))
        expected = np.concatenate([teacher.teacher(batch).numpy() for batch in batches])
    actual = onnx_file.execute(onnx, inputs)[1]["logits"]
    change = float(np.abs(expected - actual).max() / np.abs(expected).max())
    if not change <= LOGIT_CHANGE:
        raise ParityError(
            f"{onnx}: a logit differs from torch's by {change:.1e} of the largest; allowed: {LOGIT_CHANGE}"
        )
    return change, int((expected.argmax(1) == actual.argmax(1)).sum())


def _margins(
    layer: LayerParity, rule: Rule, graph: nir.NIRGraph, inputs: np.ndarray, expected: Spikes, actual: Spikes
) -> LayerParity:
    """Add the reference's distances from the threshold to a layer that differs."""
    name = layer.layer
    if layer.first is None or expected[name].shape != actual[name].shape:
        return layer
    different = expected[name] != actual[name]
    samples = np.flatnonzero(different.reshape(len(inputs), -1).any(1))
    if rule != "rounding":
        samples = samples[:1]
    steps, dt = int(graph.metadata["steps"]), float(graph.metadata["dt"])
    margins = []
    for i in range(0, len(samples), BATCH):
        run = reference.execute(graph, inputs[samples[i : i + BATCH]], steps, dt, margins_of=name)
        assert run.margins is not None
        margins.append(run.margins.swapaxes(0, 1))
    return with_margins(layer, rule, different[samples], np.concatenate(margins), samples)


@torch.no_grad()
def torch_spikes(
    model: torch.nn.Module, inputs: np.ndarray, batch: int = BATCH, *, teacher_forced: Spikes | None = None
) -> tuple[Spikes, np.ndarray]:
    """Run a student or a FoldedStudent.

    Args:
        model: The network, which is put into evaluation mode.
        inputs: (L, 3 · streams, T, V).
        batch: Samples at a time.
        teacher_forced: Spikes (L, S, *shape) of each population; they reset a student's populations,
            which pass them on in place of their own.

    Returns:
        Each population's decisions, (L, S, *shape) bool, and the logits (L, classes).
    """
    parts, logits = [], []
    model.eval()
    starts = range(0, len(inputs), batch)
    for i in track(starts, len(starts), "batches run in torch"):
        record: dict[str, Tensor] = {}
        x = torch.from_numpy(np.array(inputs[i : i + batch]))
        if teacher_forced is None:
            logits.append(model(x, record).numpy())
        else:
            assert isinstance(model, Student)
            forced = {
                name: torch.from_numpy(s[i : i + batch]).transpose(0, 1).float() for name, s in teacher_forced.items()
            }
            with _teacher_forced(model, forced, record):
                logits.append(model(x).numpy())
        parts.append({name: s.bool().transpose(0, 1).numpy() for name, s in record.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, np.concatenate(logits)


@contextmanager
def _teacher_forced(student: Student, forced: dict[str, Tensor], record: dict[str, Tensor]) -> Iterator[None]:
    """Replace the spikes (S, L, *shape) of each population; its own decisions go into `record`."""

    def force(name: str) -> Callable[..., Tensor]:
        def hook(module: LIF, currents: tuple[Tensor | Current, ...], spikes: Tensor) -> Tensor:
            record[name] = _decisions(summed(currents), module.tau, module.threshold, forced[name])
            return forced[name]

        return hook

    hooks = [module.register_forward_hook(force(name)) for name, module in student.neurons().items()]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def _decisions(current: Tensor, tau: float, threshold: Tensor, resets: Tensor) -> Tensor:
    """Return the decisions that a population makes if the spikes `resets` reset it; both (S, L, *shape)."""
    v, decisions = torch.zeros_like(current[0]), []
    for x, reset in zip(current, resets, strict=True):
        decisions.append(lif_step(x, v, tau, threshold)[0])
        _, h = lif_step(x, v, tau, float("inf"))
        v = h * (1 - reset)
    return torch.stack(decisions)


def reference_spikes(
    graph: nir.NIRGraph, inputs: np.ndarray, steps: int, dt: float, batch: int = BATCH
) -> tuple[Spikes, Spikes]:
    """Run the reference execution in batches.

    Args:
        graph: The network.
        inputs: (L, *shape), constant over the steps.
        steps: Number of time steps.
        dt: Time step in seconds.
        batch: Samples at a time.

    Returns:
        Spikes (L, S, *shape) bool of each population, and outputs (L, S, *shape).
    """
    starts = track(range(0, len(inputs), batch), -(-len(inputs) // batch), "batches of the reference execution")
    runs = [reference.execute(graph, inputs[i : i + batch], steps, dt) for i in starts]

    def join(parts: list[dict[str, np.ndarray]]) -> Spikes:
        return {name: np.concatenate([part[name] for part in parts], axis=1).swapaxes(0, 1) for name in parts[0]}

    return join([run.spikes for run in runs]), join([run.outputs for run in runs])
