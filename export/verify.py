"""Layer-by-layer comparison of two executions: every decision of every neuron at every step."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import nir
import numpy as np
import torch

from mksgn.export import reference
from mksgn.export.torch_model import FoldedStudent


@dataclass(frozen=True)
class LayerParity:
    """`first` is the first difference: (lane, step, flat neuron), None where all agree. A decision: one neuron at one step."""

    layer: str
    decisions: int
    mismatches: int
    first: tuple[int, int, int] | None


@dataclass(frozen=True)
class Parity:
    """All layers of one comparison, in the order of the network."""

    against: str
    layers: list[LayerParity]

    @property
    def decisions(self) -> int:
        return sum(layer.decisions for layer in self.layers)

    @property
    def mismatches(self) -> int:
        return sum(layer.mismatches for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        layers = [asdict(layer) for layer in self.layers]
        return {"against": self.against, "decisions": self.decisions, "mismatches": self.mismatches, "layers": layers}


def compare(against: str, wanted: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> Parity:
    """Two executions' spikes, population → (lanes, steps, ...); a population that one of them lacks counts as all wrong."""
    layers = []
    for name in [*wanted, *(n for n in found if n not in wanted)]:
        a, b = wanted.get(name), found.get(name)
        if a is None or b is None or a.shape != b.shape:
            size = max(x.size for x in (a, b) if x is not None)
            layers.append(LayerParity(name, size, size, (0, 0, 0)))
            continue
        lanes, steps = a.shape[:2]
        different = (a.astype(bool) != b.astype(bool)).reshape(lanes, steps, -1)
        count = int(different.sum())
        first = np.unravel_index(int(different.argmax()), different.shape) if count else None
        layers.append(LayerParity(name, a.size, count, None if first is None else tuple(int(i) for i in first)))  # type: ignore[arg-type]
    return Parity(against, layers)


@torch.no_grad()
def torch_spikes(
    model: torch.nn.Module, inputs: np.ndarray, batch: int = 16
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Spikes (L, S, *shape) bool of each population, and logits (L, classes), of a student or a FoldedStudent."""
    parts, logits = [], []
    model.eval()
    for i in range(0, len(inputs), batch):
        record: dict[str, torch.Tensor] = {}
        logits.append(model(torch.from_numpy(np.array(inputs[i : i + batch])), record).numpy())
        parts.append({name: s.bool().transpose(0, 1).numpy() for name, s in record.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, np.concatenate(logits)


def reference_spikes(
    graph: nir.NIRGraph, inputs: np.ndarray, steps: int, dt: float, batch: int = 16
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Spikes (L, S, *shape) bool of each population and outputs (L, S, *shape) of the NIR reference execution."""
    runs = [reference.execute(graph, inputs[i : i + batch], steps, dt) for i in range(0, len(inputs), batch)]

    def join(field: str) -> dict[str, np.ndarray]:
        return {
            name: np.concatenate([getattr(run, field)[name] for run in runs], axis=1).swapaxes(0, 1)
            for name in getattr(runs[0], field)
        }

    return join("spikes"), join("outputs")


def torch_against_nir(graph: nir.NIRGraph, inputs: np.ndarray, steps: int, dt: float) -> Parity:
    """The student in torch with the file's weights, against the file's reference execution; inputs (L, 12, T, V)."""
    wanted, _ = torch_spikes(FoldedStudent(graph), inputs)
    found, _ = reference_spikes(graph, inputs, steps, dt)
    return compare("torch with the file's weights ↔ NIR reference execution", wanted, found)
