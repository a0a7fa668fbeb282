"""The quantiser of one student over many training steps: scales and structure stay, weights change."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import nir

from mksgn.export import loihi
from mksgn.export.graph.kinds import SPIKING
from mksgn.export.graph.nodes import GraphConv, SpikingSelfAttention
from mksgn.export.graph.order import evaluation_order
from mksgn.export.quantization.attention import AttentionPopulation
from mksgn.export.quantization.paths import linear_paths, weighted_paths
from mksgn.export.quantization.populations import SpikingPopulation, loihi_membrane
from mksgn.export.quantization.quantize import by_edge, canonical, fixed_scales, with_edge_weights
from mksgn.export.quantization.readouts import write_readout
from mksgn.train.checkpoint import Quantization


class FixedQuantiser:
    """Writes the same integers as `quantize` with the same scales, but checks no range.

    Args:
        graph: A student's unquantised graph.
        quantization: Width of the weights, scales and exponents.
        dt: Time step, seconds.

    Attributes:
        nodes: The quantised nodes by name; `quantise` changes them.
        factors: Value in the file of one unit of the unquantised network, by the weighted node's name.
        units: Value in the file of one integer, likewise.
        largest: The largest |weight| that is not clipped, in integers, likewise.
        membrane_factors: `factors` by the population's name.
    """

    def __init__(self, graph: nir.NIRGraph, quantization: Quantization, dt: float) -> None:
        quantised = with_edge_weights(canonical(graph))
        values = fixed_scales(quantised, quantization, int(graph.metadata["steps"]))
        bits, scales, exponents = quantization.bits, quantization.scales, quantization.exponents
        self.nodes, self._write = quantised.nodes, list[Callable[[], None]]()
        self.factors: dict[str, float] = {}
        self.units: dict[str, float] = {}
        self.largest: dict[str, int] = {}
        self.membrane_factors: dict[str, float] = {}
        # scales of connections without weights, which training does not change
        self._synapses = {name: node.scale for name, node in quantised.nodes.items() if isinstance(node, nir.Scale)}
        walk = linear_paths(quantised)
        for name in evaluation_order(quantised):
            node = quantised.nodes[name]
            if isinstance(node, SPIKING):
                membrane = loihi_membrane(name, node, dt, None)
                population = SpikingPopulation(walk, name, membrane, values)
                own = population.format(loihi.WeightFormat(bits)).bits
                self._write += [population.synapses.read, partial(population.write, scales[name], own, exponents)]
                unit = population.unit(scales[name])
                self._keep_units(population.synapses.nodes, scales[name], unit, own, exponents)
                self.membrane_factors[name] = scales[name] * unit
            elif isinstance(node, SpikingSelfAttention):
                for part in "mz":
                    attention = AttentionPopulation(quantised, name, part, dt, values)
                    self._write.append(partial(attention.write, scales[attention.name]))
            elif isinstance(node, nir.Output):
                (path,) = weighted_paths(quantised, name, walk)
                readout, scale = {path.weighted: quantised.nodes[path.weighted]}, scales[path.weighted]
                self._write.append(partial(write_readout, readout.values(), scale, bits))
                self._keep_units(readout, scale, 1 / scale, bits, {})

    def _keep_units(
        self, names: Iterable[str], scale: float, unit: float, bits: int, exponents: Mapping[str, int]
    ) -> None:
        self.factors |= dict.fromkeys(names, scale * unit)
        self.units |= dict.fromkeys(names, unit)
        self.largest |= {name: loihi.largest_unclipped(bits, exponents.get(name, 0)) for name in names}

    def quantise(self, nodes: Mapping[str, nir.NIRNode]) -> None:
        """Write the integers of a student's unquantised nodes, as the lowering makes them."""
        for name, node in nodes.items():
            own = self.nodes[name]
            if isinstance(node, GraphConv):
                edges = by_edge(node)
                own.adjacency, own.weight, own.bias = edges.adjacency, edges.weight, edges.bias
            elif isinstance(node, SpikingSelfAttention):
                for field in ("gain_m", "gain_z", "threshold_m", "threshold_z"):
                    setattr(own, field, getattr(node, field))
            elif name in self.factors:
                own.weight, own.bias = node.weight, node.bias
        for name, ones in self._synapses.items():
            self.nodes[name].scale = ones
        for write in self._write:
            write()
