"""Loops pass: merge each recurrent loop into one execution group.

In NIR a loop takes one time step; on the chip every synapse takes one. The group therefore computes
its populations in the order of evaluation within a time step, and an edge that closes the loop
delivers what was sent in the previous step.
"""

from dataclasses import replace

import networkx

from mksgn.deploy.program.program import Program


def join_loops(program: Program) -> Program:
    """Name the execution group of each population, and order populations so that groups come after
    what feeds them.
    """
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
