"""Linear operators as blocks of weights between positions, which the compiled loops read."""

from dataclasses import dataclass

import numpy as np

from mksgn.deploy.program import operators as ops
from mksgn.export.graph.blocks import blocks_of_rows

VECTOR = 16  # channels of a vector (mksgn/deploy/kernels/vectors)
HALF = 2  # weights of a fixed-point program are even: halves are stored


@dataclass(frozen=True, eq=False)
class Blocks:
    """Synapses from the channels of source positions to the channels of target positions.

    Attributes:
        weight: int8 (blocks, C_in, C_out), half of the weights; C_out padded with zeros to whole vectors.
        edges: int32 (edges, 3): block, source position, target position; in the order of blocks.
        positions: number of target positions.
        shared: whether all targets have the same blocks, except at borders.
    """

    weight: np.ndarray
    edges: np.ndarray
    positions: int
    shared: bool


def padded(channels: int) -> int:
    """Round up to whole vectors."""
    return -(-channels // VECTOR) * VECTOR


def blocks_of(operators: ops.Operators, shape: ops.Shape) -> Blocks | None:
    """Return the blocks of operators on a source of this shape, (C, ...); None for other kinds of operators."""
    match operators:
        case (ops.Conv(groups=1) as conv,):
            return _convolution(conv, shape)
        case (ops.GraphConv() as graph,):
            return _graph_convolution(graph, shape)
        case (ops.Dense(weight=weight),) if weight.ndim == 2 and len(shape) == 1:
            return _dense(weight, shape)
        case (ops.Flatten() as flatten, ops.Dense(weight=weight)) if (
            weight.ndim == 2 and len(flatten.out_shape(shape)) == 1
        ):
            return _dense(weight, shape)
    return None


def _blocks(weight: np.ndarray, edges: list[np.ndarray], positions: int, *, shared: bool) -> Blocks:
    """Make Blocks from float weights (blocks, C_out, C_in) and the columns of the edges."""
    blocks, outputs, inputs = weight.shape
    halves = np.zeros((blocks, inputs, padded(outputs)), np.int8)
    for rows in blocks_of_rows(weight.swapaxes(0, 1)):
        halves[:, :, :outputs][:, :, rows] = np.rint(weight[:, rows] / HALF).swapaxes(1, 2)
    table = np.stack([np.ravel(column) for column in np.broadcast_arrays(*edges)], axis=1).astype(np.int32)
    return Blocks(halves, np.ascontiguousarray(table[np.argsort(table[:, 0], kind="stable")]), positions, shared)


def _convolution(conv: ops.Conv, shape: ops.Shape) -> Blocks:
    kernel, target = conv.weight.shape[2:], conv.out_shape(shape)[1:]
    taps, outputs = np.indices(kernel).reshape(len(kernel), -1, 1), np.indices(target).reshape(len(kernel), 1, -1)
    columns = (np.asarray(x)[: len(kernel), None, None] for x in (conv.stride, conv.padding, conv.dilation))
    stride, padding, dilation = columns
    source = outputs * stride - padding + taps * dilation  # (axes, taps, targets)
    sizes = np.asarray(shape[1:])[:, None, None]
    inside = ((source >= 0) & (source < sizes)).all(0)
    tap, position = np.nonzero(inside)
    flat = np.ravel_multi_index(tuple(np.clip(source, 0, sizes - 1)), shape[1:])
    weight = conv.weight.reshape(*conv.weight.shape[:2], -1).transpose(2, 0, 1)
    return _blocks(weight, [tap, flat[tap, position], position], int(np.prod(target)), shared=True)


def _graph_convolution(graph: ops.GraphConv, shape: ops.Shape) -> Blocks:
    frames = np.arange(shape[1])[:, None] * graph.joints
    edge = np.arange(len(graph.weight))
    return _blocks(
        graph.weight, [edge, frames + graph.source, frames + graph.target], shape[1] * graph.joints, shared=False
    )


def _dense(weight: np.ndarray, shape: ops.Shape) -> Blocks:
    channels, positions = shape[0], int(np.prod(shape[1:]))
    blocks = weight.reshape(len(weight), channels, positions).transpose(2, 0, 1)
    return _blocks(blocks, [np.arange(positions), np.arange(positions), np.zeros(1, int)], 1, shared=True)
