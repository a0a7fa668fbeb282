"""What kind of node each primitive is: a new primitive of NIR is entered in this table, and nowhere else."""

from __future__ import annotations

import nir

from mksgn.export.graph.nodes import GraphConv, SpikingSelfAttention

KINDS: dict[type[nir.NIRNode], str] = {
    nir.Input: "boundary",
    nir.Output: "boundary",
    nir.NIRGraph: "nested",
    nir.Conv1d: "linear weighted convolution",
    nir.Conv2d: "linear weighted convolution",
    GraphConv: "linear weighted convolution",
    nir.Affine: "linear weighted dense",
    nir.Linear: "linear weighted dense",
    nir.Scale: "linear weighted",
    nir.SumPool2d: "linear pooling",
    nir.AvgPool2d: "linear pooling",
    nir.Flatten: "linear",
    nir.Delay: "linear",
    nir.LIF: "fires spiking",
    nir.IF: "fires spiking leakless",
    nir.CubaLIF: "fires spiking current",
    nir.Threshold: "fires",
    nir.LI: "graded",
    nir.I: "graded leakless",
    nir.CubaLI: "graded current",
    SpikingSelfAttention: "attention",
}


def _of_kind(kind: str, but: str = "") -> tuple[type[nir.NIRNode], ...]:
    return tuple(node for node, kinds in KINDS.items() if kind in kinds.split() and but not in kinds.split())


LINEAR = _of_kind("linear")
WEIGHTED = _of_kind("weighted")
WEIGHTLESS = _of_kind("linear", but="weighted")  # linear nodes without parameters, and delays
CONVOLUTIONS = _of_kind("convolution")  # one bias per channel
DENSE = _of_kind("dense")
POOLING = _of_kind("pooling")
FIRING = _of_kind("fires")
SPIKING = _of_kind("spiking")  # fires, and has a membrane
GRADED = _of_kind("graded")  # outputs its membrane potential
LEAKLESS = _of_kind("leakless")
CURRENT_BASED = _of_kind("current")  # has a synaptic current that decays
NEURONS = FIRING + GRADED
