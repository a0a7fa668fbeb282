"""Graph-branches pass: merge branches of stock primitives into graph convolutions with a weight
block per edge.

NIR has no graph convolution, so files express it as branches: Linear nodes on the joints' axis
around a convolution that mixes the channels. mksgn/export/lowering/portable writes one branch per
target joint; NIR.md has the form with one per subset. Executed as written, they would multiply each
weight by zeros, count synapses that no chip has, and have no integer form.
"""

import itertools
from collections import defaultdict
from dataclasses import replace

import numpy as np

from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.program import AnyProjection, Program, Projection, Shape

Pair = tuple[str, str, int, int]  # source, target, compensation delay, logical delay


def merge_graph_branches(program: Program) -> Program:
    """Replace the branches between each pair of populations with one GraphConv that has the same currents."""
    branches: dict[Pair, list[tuple[Projection, ops.GraphConv]]] = defaultdict(list)
    kept: list[AnyProjection | Pair] = []  # a pair stands where its merged projection belongs
    for projection in program.projections:
        operator = None
        if isinstance(projection, Projection):
            operator = _graph_conv(projection.operators, program[projection.source].shape)
        if not isinstance(projection, Projection) or operator is None:
            kept.append(projection)
            continue
        pair = projection.source, projection.target, projection.compensation_delay, projection.logical_delay
        if pair not in branches:
            kept.append(pair)
        branches[pair].append((projection, operator))
    projections = [_merged(branches[entry]) if isinstance(entry, tuple) else entry for entry in kept]
    return replace(program, projections=tuple(projections))


def _merged(branches: list[tuple[Projection, ops.GraphConv]]) -> Projection:
    name = _common_name([projection.name for projection, _ in branches])
    return replace(branches[0][0], name=name, operators=(_sum([operator for _, operator in branches]),))


def _graph_conv(operators: ops.Operators, shape: Shape) -> ops.GraphConv | None:
    """Merge Dense? → Conv (1, d) → Dense?, on (C, T, V) → (C', T, V); None for anything else.

    y[o,t,j] = sum_{b,k,i} after[j,b] weight[o,c,k] before[b+k,i] x[c,t,i]
    """
    kinds = tuple(type(operator) for operator in operators)
    if kinds not in ((ops.Dense, ops.Conv, ops.Dense), (ops.Dense, ops.Conv), (ops.Conv, ops.Dense)) or len(shape) != 3:
        return None
    conv = next(operator for operator in operators if isinstance(operator, ops.Conv))
    plain = (conv.stride, conv.padding, conv.dilation, conv.groups) == ((1, 1), (0, 0), (1, 1), 1)
    if (
        not plain
        or any(conv.extra_end_padding)
        or conv.weight.shape[2] != 1
        or ops.out_shape(operators, shape)[2] != shape[2]
    ):
        return None
    joints, width = shape[2], conv.weight.shape[3]
    before, after = np.eye(joints), np.eye(joints)
    if isinstance(operators[0], ops.Dense):
        before = operators[0].weight.astype(np.float64)
    if isinstance(operators[-1], ops.Dense):
        after = operators[-1].weight.astype(np.float64)
    positions = before.shape[0] - width + 1
    windows = np.stack([before[k : k + positions] for k in range(width)])  # (width, positions, joints)
    paths = np.einsum("jb,kbi->ijk", after, windows)  # from joint i to joint j through tap k
    source, target = np.nonzero(np.abs(paths).sum(2))
    if not len(source):
        return None
    weight = np.einsum("ek,ock->eoc", paths[source, target], conv.weight[:, :, 0].astype(np.float64))
    return ops.GraphConv(weight.astype(np.float32), source, target, joints)


def _sum(branches: list[ops.GraphConv]) -> ops.GraphConv:
    """Add up branches: one block per edge, in the order of source and target joints."""
    blocks: dict[tuple[int, int], np.ndarray] = {}
    for branch in branches:
        for weight, source, target in zip(branch.weight, branch.source, branch.target, strict=True):
            edge = int(source), int(target)
            blocks[edge] = blocks[edge] + weight if edge in blocks else weight
    edges = sorted(blocks)
    source, target = np.array(edges).T
    return ops.GraphConv(np.stack([blocks[edge] for edge in edges]), source, target, branches[0].joints)


def _common_name(names: list[str]) -> str:
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in same).rstrip("_") or names[0]
