"""The kinds of node: every list of node types comes from this table (CONTRIBUTING.md says what else a new one needs)."""

import nir

from mksgn.export.graph.nodes import GraphConv, SpikingSelfAttention

TABLE: dict[str, tuple[type[nir.NIRNode], ...]] = {
    "boundary": (nir.Input, nir.Output),
    "nested": (nir.NIRGraph,),
    "linear weighted convolution": (nir.Conv1d, nir.Conv2d, GraphConv),
    "linear weighted dense": (nir.Affine, nir.Linear),
    "linear weighted": (nir.Scale,),
    "linear pooling": (nir.SumPool2d, nir.AvgPool2d),
    "linear": (nir.Flatten, nir.Delay),
    "fires spiking": (nir.LIF,),
    "fires spiking leakless": (nir.IF,),
    "fires spiking current": (nir.CubaLIF,),
    "fires": (nir.Threshold,),
    "graded": (nir.LI,),
    "graded leakless": (nir.I,),
    "graded current": (nir.CubaLI,),
    "attention": (SpikingSelfAttention,),
}
KINDS = {node: kinds.split() for kinds, nodes in TABLE.items() for node in nodes}


def _of_kind(kind: str, but: str = "") -> tuple[type[nir.NIRNode], ...]:
    return tuple(node for node, kinds in KINDS.items() if kind in kinds and but not in kinds)


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
