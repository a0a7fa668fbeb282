"""Host-split pass: keep on the host what lies before the first spikes of an analog input.

It is computed once for all backends, in multiply-accumulates. A block-diagonal convolution, as the
unshared branches of SSC are stored, becomes the equivalent grouped convolution there, so that the
host does not multiply by the zeros outside the blocks.
"""

import math
from dataclasses import replace

import numpy as np

from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.program import AnyProjection, Population, Program, Projection


def host_split(program: Program, *, empty_chip: bool = True) -> Program:
    """Move analog inputs to the host, with each group that is fed only by currents from the host.

    Without `empty_chip`, a program that would leave nothing on the chip stays as it is.
    """
    changed: dict[str, Population] = {}
    for population in program.inputs:
        if population.name in program.analog:
            changed[population.name] = replace(population, location="host")
    for members in program.groups.values():  # sources come before what they feed
        inside = {p.name for p in members}
        outside = {s for p in members for q in program.into(p.name) for s in q.sources} - inside
        if outside and all(s in changed and not program.sends_spikes(s) for s in outside):
            changed |= {p.name: replace(p, location="host") for p in members}
    if not empty_chip and len(changed) == len(program.populations):
        return program
    on_host = {name for name, population in changed.items() if population.kind != "input"}
    projections = tuple(_grouped(q) if q.target in on_host else q for q in program.projections)
    return replace(program.with_populations(changed), projections=projections)


def _grouped(projection: AnyProjection) -> AnyProjection:
    if not isinstance(projection, Projection):
        return projection
    operators = tuple(in_groups(op) if isinstance(op, ops.Conv) else op for op in projection.operators)
    if all(a is b for a, b in zip(operators, projection.operators, strict=True)):
        return projection
    return replace(projection, operators=operators)


def in_groups(conv: ops.Conv) -> ops.Conv:
    """Return the convolution in as many groups as its zeros allow; itself if they allow no more than
    it has.
    """
    if conv.groups != 1:
        return conv
    outputs, inputs = conv.weight.shape[:2]
    used = (conv.weight != 0).reshape(outputs, inputs, -1).any(2)
    common = math.gcd(outputs, inputs)
    for groups in range(common, 1, -1):
        if common % groups:
            continue
        height, width = outputs // groups, inputs // groups
        blocks = np.kron(np.eye(groups, dtype=bool), np.ones((height, width), dtype=bool))
        if not (used & ~blocks).any():
            weight = [conv.weight[i * height : (i + 1) * height, i * width : (i + 1) * width] for i in range(groups)]
            return replace(conv, weight=np.ascontiguousarray(np.concatenate(weight)), groups=groups)
    return conv
