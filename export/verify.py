"""The same clips through several executions of one file, compared with the reference execution of its NIR graph.

A quantised file's executions run freely: from the input on, not one decision may differ. An unquantised file's are given the
reference's spikes at every layer, so that one membrane that rounds across its threshold is counted once, and not again in all that
follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import nir
import numpy as np
import torch
from torch import Tensor

from mksgn.export import reference, simulators
from mksgn.export.errors import ExportError
from mksgn.export.parity import Parity, compare, with_margins
from mksgn.export.torch_model import FoldedStudent
from mksgn.train.student import Student

Spikes = dict[str, np.ndarray]
MARGIN_LANES = 64  # lanes with differences whose membranes are looked at; more differ only where all is wrong


def verify(
    graph: nir.NIRGraph, student: Student | None, inputs: np.ndarray, *, against: tuple[str, ...] = ()
) -> list[Parity]:
    """Torch, then each simulator of `against`, with the reference execution of `graph`; inputs (L, 3 · streams, T, V).

    `student` is the trained one, which an unquantised file is compared with; a quantised file brings its own weights. Raises
    ExportError for a simulator that cannot be asked.
    """
    steps, dt = int(graph.metadata["steps"]), float(graph.metadata["dt"])
    quantised = "quantization" in graph.metadata
    wanted, _ = reference_spikes(graph, inputs, steps, dt)
    if quantised:
        executions = {"torch": torch_spikes(FoldedStudent(graph), inputs)[0]}
        for simulator in against:
            executions[simulator] = simulators.spikes(simulator, graph, inputs, steps, dt)
    else:
        if against:
            raise ExportError(
                f"--against {','.join(against)} needs a quantised file: unquantised executions may round apart at any layer, and a "
                "simulator cannot be given the reference's spikes; export with --quantize 8"
            )
        if student is None:
            raise ExportError(
                "an unquantised file is compared with its student; give the model.pt that it was made from"
            )
        executions = {"torch": torch_spikes(student, inputs, forced=wanted)[0]}
    return [
        _margins(
            replace(compare(f"{name} ↔ NIR reference", wanted, found), quantised=quantised),
            graph,
            inputs,
            wanted,
            found,
        )
        for name, found in executions.items()
    ]


def torch_against_nir(graph: nir.NIRGraph, inputs: np.ndarray) -> Parity:
    """Torch with a quantised file's weights, against the file's reference execution."""
    return verify(graph, None, inputs)[0]


def _margins(parity: Parity, graph: nir.NIRGraph, inputs: np.ndarray, wanted: Spikes, found: Spikes) -> Parity:
    steps, dt = int(graph.metadata["steps"]), float(graph.metadata["dt"])
    for layer in parity.layers:
        if layer.first is None or wanted[layer.layer].shape != found[layer.layer].shape:
            continue
        different = wanted[layer.layer] != found[layer.layer]
        lanes = np.flatnonzero(different.reshape(len(inputs), -1).any(1))[:MARGIN_LANES]
        run = reference.execute(graph, inputs[lanes], steps, dt, margins_of=layer.layer)
        assert run.margins is not None
        parity = with_margins(parity, layer.layer, different[lanes], run.margins.swapaxes(0, 1), lanes)
    return parity


@torch.no_grad()
def torch_spikes(
    model: torch.nn.Module, inputs: np.ndarray, batch: int = 16, *, forced: Spikes | None = None
) -> tuple[Spikes, np.ndarray]:
    """Spikes (L, S, *shape) bool of each population, and logits (L, classes), of a student or a FoldedStudent.

    With `forced`, a student's populations decide for themselves but hand on these spikes instead of their own.
    """
    parts, logits = [], []
    model.eval()
    for i in range(0, len(inputs), batch):
        record: dict[str, Tensor] = {}
        x = torch.from_numpy(np.array(inputs[i : i + batch]))
        if forced is None:
            logits.append(model(x, record).numpy())
        else:
            assert isinstance(model, Student)
            given = {name: torch.from_numpy(s[i : i + batch]).transpose(0, 1).float() for name, s in forced.items()}
            with _handing_on(model, given, record):
                logits.append(model(x).numpy())
        parts.append({name: s.bool().transpose(0, 1).numpy() for name, s in record.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, np.concatenate(logits)


@contextmanager
def _handing_on(student: Student, given: dict[str, Tensor], record: dict[str, Tensor]) -> Iterator[None]:
    """Within, each population's own spikes go into `record`, and `given` ones to the layers behind it."""

    def hand_on(name: str) -> Callable[..., Tensor]:
        def hook(module, arguments, spikes: Tensor) -> Tensor:
            record[name] = spikes
            return given[name]

        return hook

    def attention(block: str, neuron: Callable[..., Tensor]) -> Callable[..., Tensor]:
        parts = iter((f"{block}_attention.m", f"{block}_attention.z"))

        def fire(current: Tensor, tau: float, threshold: Tensor) -> Tensor:
            name, spikes = next(parts), neuron(current, tau, threshold)
            record[name] = spikes.reshape(given[name].shape)
            return given[name].reshape(spikes.shape)

        return fire

    attentions = [(sgc.name, sgc.attention) for sgc in student.sgc if sgc.attention is not None]
    own = [(module, module.neuron) for _, module in attentions]
    for name, module in attentions:
        module.neuron = attention(name, module.neuron)
    hooks = [module.register_forward_hook(hand_on(name)) for name, module in student.neurons().items()]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()
        for module, neuron in own:
            module.neuron = neuron


def reference_spikes(
    graph: nir.NIRGraph, inputs: np.ndarray, steps: int, dt: float, batch: int = 16
) -> tuple[Spikes, Spikes]:
    """Spikes (L, S, *shape) bool of each population and outputs (L, S, *shape) of the NIR reference execution."""
    runs = [reference.execute(graph, inputs[i : i + batch], steps, dt) for i in range(0, len(inputs), batch)]

    def join(field: str) -> Spikes:
        return {
            name: np.concatenate([getattr(run, field)[name] for run in runs], axis=1).swapaxes(0, 1)
            for name in getattr(runs[0], field)
        }

    return join("spikes"), join("outputs")
