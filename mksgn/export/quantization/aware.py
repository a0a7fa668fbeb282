"""Quantisation-aware training: the forward pass is the network of the quantised file, to the spike.

Each pass lowers the student, folds and rounds it with the exporter's own code, and runs the integers.
Scales stay as they were at the start. A weight w, which the file holds as an integer n times a unit u,
is used as

    n u + (c w - c w)        c = scale u, the second c w without gradient

so that the gradient passes straight through the rounding, as if the file held c w; it is 0 where n is
clipped. Spikes are exact, since the membranes of a quantised file are. The surrogate gradient is that of the
unquantised neuron, whose membrane is 1/c of the file's. Attention's gains are thresholds per head in the
file; their gradient is that of a gain before the membrane.
"""

import copy

import numpy as np
import torch
from torch import Tensor

from mksgn.export.graph.nodes import GraphConv, SpikingSelfAttention
from mksgn.export.lowering.fold import edge_weights
from mksgn.export.lowering.lower import Lowering, lower
from mksgn.export.quantization.fixed import FixedQuantiser
from mksgn.export.quantization.quantize import quantize
from mksgn.export.quantization.samples import CLIPS
from mksgn.export.verification.folded_student import FoldedStudent
from mksgn.train.checkpoint import Quantization, TrainedModel
from mksgn.train.datasets.clips import ClipSet, spread
from mksgn.train.layers import SASGC, STC, is_attention
from mksgn.train.neurons import SURROGATE_SLOPE
from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import Student
from mksgn.train.transforms import body_inputs

HEADROOM = 0.75  # of a scale that float32 bounds, so that the sums into a neuron may grow in training
DT = 1e-4  # seconds, the default of mksgn-export; the spikes do not depend on it


def quantization_aware(trained: TrainedModel, bits: int, training: ClipSet) -> "QuantizationAwareStudent":
    """Make a copy of a trained student that runs quantised; the exporter chooses its scales from some training clips.

    Raises:
        ExportError: The student cannot be exported with this number of bits.
    """
    student = copy.deepcopy(trained.student).eval()
    calibration, _ = body_inputs(spread(training, CLIPS).clips, trained.normaliser)
    quantization = choose_scales(student, trained.normaliser, bits, calibration)
    return QuantizationAwareStudent(student, trained.normaliser, quantization)


def choose_scales(student: Student, normaliser: StreamNormaliser, bits: int, calibration: np.ndarray) -> Quantization:
    """Choose the scales of a student as the exporter does, with some room for what training changes.

    Args:
        student: The student.
        normaliser: Makes its inputs.
        bits: Bits per weight.
        calibration: Inputs (L, 3 · streams, T, V).
    """
    graph = lower(student, normaliser, dt=DT)
    _, found = quantize(graph, bits, calibration, student.config.steps, DT)
    exponents = {node: e for scale in found.values() for node, e in scale.weight_exponents.items()}
    bounded = {name for name, scale in found.items() if scale.binding == "float32" and not is_attention(name)}
    scales = {name: scale.scale * (HEADROOM if name in bounded else 1.0) for name, scale in found.items()}
    return Quantization(bits, scales, exponents)


class QuantizationAwareStudent(FoldedStudent):
    """A student whose forward pass is that of its quantised file: (L, 3 · streams, T, V) → logits (L, classes).

    Its batch norms and SMF keep their statistics; all parameters are trained.

    Args:
        student: The student, which the training changes.
        normaliser: Makes its inputs.
        quantization: Bits, scales and exponents.
    """

    def __init__(self, student: Student, normaliser: StreamNormaliser, quantization: Quantization) -> None:
        graph = lower(student.eval(), normaliser, dt=DT)
        super().__init__(graph)
        self.student, self.normaliser, self.quantization = student, normaliser, quantization
        self.quantiser = FixedQuantiser(graph, quantization, DT)
        self.nodes = self.quantiser.nodes
        self._trained: dict[tuple[str, str], Tensor] = {}
        self._heads: dict[tuple[str, str], tuple[Tensor, Tensor, Tensor]] = {}

    @property
    def blocks(self) -> list[tuple[SASGC, STC]]:
        """The student's blocks, from which the training counts the synapses of each neuron."""
        return self.student.blocks

    def train(self, mode: bool = True) -> "QuantizationAwareStudent":
        """Switch the mode; the student itself stays in evaluation mode, which freezes its statistics."""
        super().train(mode)
        self.student.eval()
        return self

    def forward(self, x: Tensor, spikes: dict[str, Tensor] | None = None) -> Tensor:
        """Return the logits; `spikes`, if given, receives (S, L, *shape) of each population."""
        self._round(x.device)
        return super().forward(x, spikes)

    def _round(self, device: torch.device) -> None:
        """Compute the numbers used in this pass from the student's parameters."""
        lowering = Lowering(self.student, self.normaliser, dt=DT)
        self.quantiser.quantise(lowering.nodes)
        for name, folded in lowering.folded.items():
            node = self.nodes[name]
            if isinstance(node, SpikingSelfAttention):
                for part, threshold in zip("mz", folded, strict=True):
                    self._heads[name, part] = self._head(getattr(node, f"threshold_{part}"), threshold, device)
                continue
            *_, weight, bias = folded
            if isinstance(node, GraphConv):
                _, source, target = np.nonzero(node.adjacency)
                weight = edge_weights(folded[0], weight, source, target)
            factor = self.quantiser.factors[name]
            clipped = self.quantiser.largest[name] * self.quantiser.units[name]
            self._trained[name, "weight"] = _straight_through(node.weight, weight * factor, clipped)
            self._trained[name, "bias"] = _straight_through(node.bias, bias * factor)

    def _head(self, written: np.ndarray, threshold: Tensor, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Return gain, threshold and slope per head: the gain is 1, with the gradient of the folded gain."""
        exact = threshold.detach()
        gain, slope = exact / threshold, SURROGATE_SLOPE / exact
        per_head = (gain.float(), torch.from_numpy(written).to(device), slope.float())
        return tuple(x.view(-1, 1, 1, 1) for x in per_head)  # type: ignore[return-value]

    def number(self, name: str, field: str, like: Tensor) -> Tensor:
        found = self._trained.get((name, field))
        return super().number(name, field, like) if found is None else found

    def slope(self, name: str) -> float:
        return SURROGATE_SLOPE / self.quantiser.membrane_factors[name]

    def per_head(self, name: str, part: str, like: Tensor) -> tuple[Tensor, Tensor, float | Tensor]:
        return self._heads[name, part]


def _straight_through(exact: np.ndarray, smooth: Tensor, clipped: float = float("inf")) -> Tensor:
    """Return the exact numbers with the gradient of the smooth ones, or none where those exceed `clipped`."""
    smooth = smooth.float()
    fixed = smooth.detach()
    if clipped < float("inf"):
        smooth = torch.where(fixed.abs() <= clipped, smooth, fixed)
    return torch.from_numpy(np.asarray(exact, dtype=np.float32)).to(smooth.device) + (smooth - fixed)
