"""Populations in a loop become one group: NIR's loops cost one step in all, and a chip's synapse one each.

The group computes its populations in the order of evaluation within a time step; an edge that closes the loop shows the step before.
"""

from __future__ import annotations

from dataclasses import replace

import networkx

from mksgn.deploy.program.program import Program


def join_loops(program: Program) -> Program:
    """Name the group of each population, and order populations so that a group comes after all that feeds it."""
    position = {p.name: i for i, p in enumerate(program.populations)}
    graph = networkx.DiGraph()
    graph.add_nodes_from(position)
    graph.add_edges_from((s, q.target) for q in program.projections for s in q.sources)
    groups = networkx.condensation(graph)
    first = {group: min(position[name] for name in groups.nodes[group]["members"]) for group in groups}
    populations = []
    for group in networkx.lexicographical_topological_sort(groups, key=first.__getitem__):
        members = sorted(groups.nodes[group]["members"], key=position.__getitem__)
        populations += [replace(program[name], group=members[0]) for name in members]
    return replace(program, populations=tuple(populations))
