"""The benchmark's networks: chains of random integer weights that fire at a trained network's rate, and the student."""

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch

from mksgn.export import export_to_nir
from mksgn.export.graph.nodes import GraphConv
from mksgn.export.loihi import HALF_STEP
from mksgn.train import checkpoint
from mksgn.train.checkpoint import TrainedModel
from mksgn.train.config import PRESETS
from mksgn.train.datasets import ClipSet
from mksgn.train.describe import calibrate_batch_norms
from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import Student, StudentConfig
from mksgn.train.transforms import body_inputs

DT, RATE = 1e-4, 0.5  # tau = 2 steps
FIRING = 0.12  # firing rate that the thresholds aim at: trained students fire at 5 to 20 %
WEIGHT = 60  # largest |weight|
STEPS = 4


def conv_chain(
    layers: int = 6, channels: int = 64, frames: int = 16, joints: int = 20, kernel: int = 9, seed: int = 0
) -> nir.NIRGraph:
    """Make a chain of Conv (kernel x 1) + LIF; spikes in, the last population's spikes out."""
    rng = np.random.default_rng(seed)

    def conv(i: int) -> nir.NIRNode:
        weight = _weights(rng, channels, channels, kernel, 1)
        return nir.Conv2d(None, weight, 1, (kernel // 2, 0), 1, 1, np.zeros(channels, np.float32))

    return _chain([conv(i) for i in range(layers)], (channels, frames, joints), channels * kernel)


def dense_chain(layers: int = 3, neurons: int = 256, seed: int = 0) -> nir.NIRGraph:
    """Make a chain of Linear + LIF, each of `neurons` neurons."""
    rng = np.random.default_rng(seed)
    return _chain([nir.Linear(_weights(rng, neurons, neurons)) for _ in range(layers)], (neurons,), neurons)


def graph_chain(layers: int = 4, channels: int = 32, frames: int = 16, joints: int = 20, seed: int = 0) -> nir.NIRGraph:
    """Make a chain of GraphConv + LIF on a line of joints, each connected to itself and its neighbours."""
    rng = np.random.default_rng(seed)
    edges = [(i, j) for i in range(joints) for j in (i - 1, i, i + 1) if 0 <= j < joints]
    adjacency = np.zeros((len(edges), joints, joints), np.float32)
    for k, (i, j) in enumerate(edges):
        adjacency[k, i, j] = 1

    def conv() -> nir.NIRNode:
        return GraphConv(adjacency, _weights(rng, len(edges), channels, channels), np.zeros(channels, np.float32))

    return _chain([conv() for _ in range(layers)], (channels, frames, joints), 3 * channels)


def _weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (2 * rng.integers(-WEIGHT // 2, WEIGHT // 2 + 1, shape)).astype(np.float32)


def _chain(linear: list[nir.NIRNode], shape: tuple[int, ...], fan_in: int) -> nir.NIRGraph:
    """Connect linear nodes and LIFs whose thresholds give a firing rate of about FIRING.

    With normally distributed sums, a membrane of tau = 2 deviates by 2 / sqrt(3) times a sum's
    deviation.
    """
    deviation = WEIGHT / math.sqrt(3) * math.sqrt(fan_in * FIRING) * 2 / math.sqrt(3)
    threshold = np.full(shape, (round(deviation) + HALF_STEP) * RATE, np.float32)
    zero = np.zeros(shape, np.float32)
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array(shape)})}
    for i, node in enumerate(linear):
        nodes[f"conv{i + 1}"] = node
        nodes[f"lif{i + 1}"] = nir.LIF(zero + np.float32(DT / RATE), zero + 1, zero, threshold, zero)
    nodes["output"] = nir.Output({"output": np.array(shape)})
    scales = {name: {"exponent": 0} for name, node in nodes.items() if isinstance(node, nir.LIF)}
    metadata = {
        "dt": DT,
        "steps": STEPS,
        "quantization": json.dumps({"bits": 8, "exact_on_chip": True, "populations": scales}),
    }
    return nir.NIRGraph(nodes, list(itertools.pairwise(nodes)), metadata=metadata, type_check=False)


def spike_inputs(graph: nir.NIRGraph, samples: int, seed: int = 1) -> np.ndarray:
    """Draw spikes of rate FIRING: (samples, STEPS, *shape) bool."""
    shape = tuple(int(n) for n in graph.nodes["input"].input_type["input"])
    return np.random.default_rng(seed).random((samples, STEPS, *shape)) < FIRING


@dataclass(frozen=True, eq=False)
class PaperStudent:
    """A student and its graph; `bodies` is (L, 12, T, V), and `inputs` a view that repeats it at each of S steps."""

    student: Student
    graph: nir.NIRGraph
    bodies: np.ndarray

    @property
    def inputs(self) -> np.ndarray:
        steps = self.student.config.steps
        return np.broadcast_to(self.bodies[:, None], (len(self.bodies), steps, *self.bodies.shape[1:]))


def paper_student(
    clips: ClipSet, samples_wanted: int, frames: int = 16, preset: str = "paper", seed: int = 0, **changes: Any
) -> PaperStudent:
    """Make an untrained student of the preset's widths, with batch norms calibrated on the clips, and its 8-bit graph.

    `changes` are further entries of its configuration, such as attention="none".
    """
    torch.manual_seed(seed)
    values = {**PRESETS[preset]["student"], "frames": frames, **changes}
    student = Student(StudentConfig(clips.graph, clips.classes, **values))
    normaliser = StreamNormaliser.fit(clips.clips, frames, student.config.streams)
    batch, _ = body_inputs(clips.clips, normaliser)
    calibrate_batch_norms(student, torch.from_numpy(batch[:16]))
    model = TrainedModel(student.eval(), normaliser, {"preset": preset, "split": "benchmark"})
    graph = export_to_nir(model, quantize=8, calibration=batch[:8])
    return PaperStudent(student, graph, np.resize(batch, (samples_wanted, *batch.shape[1:])))


def trained_student(path: Path, clips: ClipSet, samples_wanted: int) -> PaperStudent:
    """Read a trained student, and make its 8-bit graph, calibrated on the clips."""
    model = checkpoint.load(path)
    batch, _ = body_inputs(clips.clips, model.normaliser)
    graph = export_to_nir(model, quantize=8, calibration=batch[:8])
    return PaperStudent(model.student, graph, np.resize(batch, (samples_wanted, *batch.shape[1:])))
