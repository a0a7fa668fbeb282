"""Populations in a loop become one leaf: NIR's loops cost one step in all, and a chip's synapse one each.

The leaf computes its populations in the order of evaluation within a time step; an edge that closes the loop shows the step before.
"""

from __future__ import annotations

from dataclasses import replace

import networkx

from mksgn.deploy.program.program import Program


def join_loops(program: Program) -> Program:
    """Name the leaf of each population, and order populations so that a leaf comes after all that feeds it."""
    position = {p.name: i for i, p in enumerate(program.populations)}
    graph = networkx.DiGraph()
    graph.add_nodes_from(position)
    graph.add_edges_from((s, q.target) for q in program.projections for s in q.sources)
    leaves = networkx.condensation(graph)
    first = {leaf: min(position[name] for name in leaves.nodes[leaf]["members"]) for leaf in leaves}
    populations = []
    for leaf in networkx.lexicographical_topological_sort(leaves, key=first.__getitem__):
        members = sorted(leaves.nodes[leaf]["members"], key=position.__getitem__)
        populations += [replace(program[name], leaf=members[0]) for name in members]
    return replace(program, populations=tuple(populations))
