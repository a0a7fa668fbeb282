"""Branches of Linear and Conv2d nodes that spell a graph convolution become one, with the same
currents.
"""

import nir
import numpy as np
import pytest

from mksgn.deploy import emulator
from mksgn.deploy.passes.balance import balance
from mksgn.deploy.passes.graph_branches import merge_graph_branches
from mksgn.deploy.passes.ingest import ingest
from mksgn.deploy.program.operators import GraphConv
from tests.support.graphs import DT, conv, graph, inp, lattice, lif, linear, out, ring, spikes

C, T, V = 3, 4, 5


def spelled(form: str, rng) -> nir.NIRGraph:
    """sum_k A_kᵀ X W_k in stock primitives, and a skip that is not a graph convolution."""
    weight, adjacency = lattice(rng, 3, 2, C, 1, 1), ring(V)
    nodes = {
        "x": inp(C, T, V),
        "skip": conv(lattice(rng, 2, C, 1, 1)),
        "y": lif(2, T, V, threshold=0.25),
        "out": out(2, T, V),
    }
    edges = [("x", "skip"), ("skip", "y"), ("y", "out")]
    for k in range(3):
        mix, spread = (f"graph_{k}_mix", conv(weight[k])), (f"graph_{k}_spread", linear(adjacency[k].T))
        first, second = (mix, spread) if form == "channels first" else (spread, mix)
        nodes |= dict([first, second])
        edges += [("x", first[0]), (first[0], second[0]), (second[0], "y")]
    return graph(nodes, edges, steps=4)


@pytest.mark.parametrize("form", ["channels first", "joints first"])
def test_branches_become_one_projection_with_the_same_spikes(form):
    rng = np.random.default_rng(1)
    before = ingest(spelled(form, rng), dt=DT)
    after = merge_graph_branches(before)
    assert len(before.projections) == 4
    kinds = {p.name: [type(op).__name__ for op in p.operators] for p in after.projections}
    assert kinds == {"graph": ["GraphConv"], "skip": ["Conv"]}
    merged = next(p for p in after.projections if p.name == "graph").operators[0]
    assert isinstance(merged, GraphConv)
    assert list(zip(merged.source, merged.target, strict=True)) == sorted(
        set(zip(*np.nonzero(ring(V).sum(0)), strict=True))
    )
    x = spikes(rng, 6, 4, C, T, V)
    a, b = (emulator.execute(balance(p), {"x": x}, record=True, progress=lambda n: None) for p in (before, after))
    assert a.spikes["y"].any()
    assert np.array_equal(a.spikes["y"], b.spikes["y"])
    # the edges' synapses only: as branches every joint would reach every other
    assert b.counters["y"].syn_ops < a.counters["y"].syn_ops


@pytest.mark.parametrize("change", ["stride", "padding", "joints", "kernel"])
def test_other_projections_stay_as_they_are(change):
    rng = np.random.default_rng(2)
    nodes = {
        "x": inp(C, T, V),
        "mix": conv(lattice(rng, 2, C, 1, 1)),
        "spread": linear(lattice(rng, V, V)),
        "y": lif(2, T, V),
    }
    shape = (2, T, V)
    if change == "stride":
        nodes["mix"], shape = conv(lattice(rng, 2, C, 1, 1), stride=(2, 1)), (2, T // 2, V)
    elif change == "padding":
        nodes["mix"], shape = conv(lattice(rng, 2, C, 1, 1), padding=(1, 0)), (2, T + 2, V)
    elif change == "joints":
        nodes["spread"], shape = linear(lattice(rng, V + 1, V)), (2, T, V + 1)
    else:
        nodes["mix"] = conv(lattice(rng, 2, C, 3, 1), padding=(1, 0))
    nodes |= {"y": lif(*shape), "out": out(*shape)}
    program = ingest(graph(nodes, [("x", "mix"), ("mix", "spread"), ("spread", "y"), ("y", "out")], steps=4), dt=DT)
    assert merge_graph_branches(program).projections == program.projections


@pytest.mark.parametrize("second", ["spread", "other spread", "none"])
def test_branches_to_two_populations_are_not_merged(second):
    """Two populations read one convolution: each keeps its own projection."""
    rng = np.random.default_rng(3)
    shape = (2, T, V)
    nodes = {"x": inp(C, T, V), "mix": conv(lattice(rng, 2, C, 1, 1)), "spread": linear(lattice(rng, V, V))}
    nodes |= {"other": linear(lattice(rng, V, V)), "skip": conv(lattice(rng, 2, C, 1, 1))}
    nodes |= {
        "a": lif(*shape, threshold=0.25),
        "b": lif(*shape, threshold=0.25),
        "a_out": out(*shape),
        "b_out": out(*shape),
    }
    to_b = {"spread": "spread", "other spread": "other", "none": "mix"}[second]
    edges = [
        ("x", "mix"),
        ("mix", "spread"),
        ("mix", "other"),
        ("spread", "a"),
        ("x", "skip"),
        ("skip", "a"),
        ("skip", "b"),
    ]
    edges += [(to_b, "b"), ("a", "a_out"), ("b", "b_out")]
    if second != "other spread":
        del nodes["other"]
        edges.remove(("mix", "other"))
    before = ingest(graph(nodes, edges, steps=4), dt=DT)
    after = merge_graph_branches(before)
    x = spikes(rng, 6, 4, C, T, V)
    a, b = (emulator.execute(balance(p), {"x": x}, record=True, progress=lambda n: None) for p in (before, after))
    for name in "ab":
        assert a.spikes[name].any()
        assert np.array_equal(a.spikes[name], b.spikes[name])
    assert sum(type(p.operators[0]) is GraphConv for p in after.projections) == (1 if second == "none" else 2)


def test_branches_without_edges_stay_as_they_are():
    nodes = {
        "x": inp(C, T, V),
        "mix": conv(np.ones((2, C, 1, 1))),
        "spread": linear(np.zeros((V, V))),
        "y": lif(2, T, V),
    }
    nodes["out"] = out(2, T, V)
    program = ingest(graph(nodes, [("x", "mix"), ("mix", "spread"), ("spread", "y"), ("y", "out")], steps=4), dt=DT)
    assert merge_graph_branches(program).projections == program.projections
