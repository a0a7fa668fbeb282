"""mksgn/export/graph/kinds: every primitive is in the table, and the kinds partition it."""

import nir

from mksgn.export.graph import kinds
from mksgn.export.graph.nodes import GraphConv, SpikingSelfAttention


def test_every_primitive_is_in_the_table():
    known = {getattr(nir.ir, name) for name in vars(nir.ir)["__all_ir"]}
    assert known == set(kinds.KINDS)
    assert {GraphConv, SpikingSelfAttention} <= known


def test_a_node_is_linear_or_a_neuron_or_neither():
    assert not set(kinds.LINEAR) & set(kinds.NEURONS)
    assert set(kinds.WEIGHTED) | set(kinds.WEIGHTLESS) == set(kinds.LINEAR)
    assert not set(kinds.WEIGHTED) & set(kinds.WEIGHTLESS)
    assert set(kinds.CONVOLUTIONS + kinds.DENSE) < set(kinds.WEIGHTED)
    assert set(kinds.POOLING) < set(kinds.WEIGHTLESS)
    assert not set(kinds.FIRING) & set(kinds.GRADED)
    assert set(kinds.LEAKLESS + kinds.CURRENT_BASED) < set(kinds.SPIKING + kinds.GRADED)
    others = set(kinds.KINDS) - set(kinds.LINEAR) - set(kinds.NEURONS)
    assert others == {nir.Input, nir.Output, nir.NIRGraph, SpikingSelfAttention}


def test_what_weighted_nodes_and_neurons_hold():
    """The kinds are those of the classes' own fields."""
    fields = {node: set(node.__dataclass_fields__) for node in kinds.KINDS}
    assert set(kinds.WEIGHTED) == {node for node in fields if fields[node] & {"weight", "scale"}}
    assert set(kinds.POOLING) == {node for node in fields if "kernel_size" in fields[node]}
    assert set(kinds.SPIKING) == {node for node in fields if "v_threshold" in fields[node]}
    assert set(kinds.GRADED) == {node for node in fields if "r" in fields[node]} - set(kinds.SPIKING)
    assert set(kinds.CURRENT_BASED) == {node for node in fields if "tau_syn" in fields[node]}
    assert set(kinds.LEAKLESS) == {node for node in fields if "r" in fields[node] and "v_leak" not in fields[node]}
