"""One form for every graph that is read or passed in: what frameworks write differently is unified here.

Flat; NumPy arrays; no batch or time axes; every parameter of a neuron, Scale or Delay in the shape of its signal.
"""

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import nir
import numpy as np
import torch

from mksgn.common.errors import MksgnWarning
from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.flatten import flatten
from mksgn.export.graph.nodes import GraphConv
from mksgn.export.graph.shapes import ELEMENTWISE, Shape, Signals, broadcast, infer_shapes, parameters_of


def standard_form(graph: nir.NIRGraph) -> nir.NIRGraph:
    """Bring a graph, nested or flat, from a file or from another library's exporter, into one form.

    - Nested graphs are flattened.
    - Tensors, and arrays of other libraries, become NumPy arrays; a bias of None becomes 0, and a bias that is a
      single number gets the shape that its weights require.
    - Leading axes of an Input's shape that the rest of the graph does not have are dropped: the batch and time
      axes of the sample that the exporter was given. A warning says so.
    - Parameters of neurons, Scale, Threshold and Delay are broadcast to the shape of their signal. Files
      of nir up to 1.0.4, and of norse, hold one number for a whole population.

    Args:
        graph: The graph; it is not changed.

    Returns:
        `graph` itself if it has this form, else a new graph with its metadata. Shapes that do not fit stay
        as they are; a later stage names the node.

    Raises:
        UnsupportedNodeError: `flatten` refuses the graph, or a time constant is infinite.
    """
    graph = flatten(_with_arrays(graph))
    for name, node in graph.nodes.items():
        _check_time_constants(name, node)
    declared = {name: _shape(node.input_type) for name, node in graph.nodes.items() if isinstance(node, nir.Input)}
    if None in declared.values():
        return graph
    inputs, signals = _without_leading_axes(
        graph, {name: shape for name, shape in declared.items() if shape is not None}
    )
    if signals is None:
        return graph
    changed: dict[str, nir.NIRNode] = {}
    for name, shape in inputs.items():
        if shape != declared[name]:
            changed[name] = nir.Input({"input": np.array(shape, dtype=int)}, metadata=graph.nodes[name].metadata)
            warnings.warn(
                f"input {name}: its shape {declared[name]} begins with batch or time axes, which the graph after "
                f"it does not have and which were dropped; one step of a sample has the shape {shape}",
                MksgnWarning,
                stacklevel=2,
            )
    for name, shape in signals.into.items():
        node = graph.nodes[name]
        if isinstance(node, ELEMENTWISE) and not _is_full(node, shape):
            changed[name] = _full(node, shape)
        elif isinstance(node, nir.Output) and _leads_to(_shape(node.output_type), shape):
            changed[name] = nir.Output({"output": np.array(shape, dtype=int)}, metadata=node.metadata)
    if not changed:
        return graph
    nodes = {name: changed.get(name, node) for name, node in graph.nodes.items()}
    return nir.NIRGraph(nodes, graph.edges, metadata=graph.metadata, type_check=False)


def _shape(types: dict[str, Any] | None) -> Shape | None:
    value = next(iter(types.values()), None) if types else None
    return None if value is None else tuple(int(n) for n in value)


def _without_leading_axes(graph: nir.NIRGraph, declared: dict[str, Shape]) -> tuple[dict[str, Shape], Signals | None]:
    """Return the Inputs' shapes that fit the graph best, as declared or without leading axes, and the signals."""
    best, signals = declared, infer_shapes(graph, declared)
    for inputs in _candidates(declared):
        if signals is not None and not signals.untyped:
            break
        others = infer_shapes(graph, inputs)
        if others is not None and (signals is None or others.untyped < signals.untyped):
            best, signals = inputs, others
    return best, signals


def _candidates(declared: dict[str, Shape]) -> Iterator[dict[str, Shape]]:
    """Yield shapes without one leading axis, then without two, and so on: of all Inputs, then of each alone."""
    for axes in range(1, max(map(len, declared.values()), default=0)):
        shorter = {name: shape[axes:] for name, shape in declared.items() if len(shape) > axes}
        yield declared | shorter
        if len(shorter) > 1:
            yield from (declared | {name: shape} for name, shape in shorter.items())


def _leads_to(declared: Shape | None, shape: Shape) -> bool:
    """Return whether an Output's shape differs only by leading axes, or by one parameter for all neurons."""
    if declared is None or declared == shape:
        return declared is None
    return all(n == 1 for n in declared) or declared[len(declared) - len(shape) :] == shape


def _is_full(node: nir.NIRNode, shape: Shape) -> bool:
    return all(isinstance(x, np.ndarray) and x.shape == shape for x in parameters_of(node).values())


def _full(node: nir.NIRNode, shape: Shape) -> nir.NIRNode:
    """Copy the node, with parameters of the signal's shape."""
    own = copy.copy(node)
    for name, value in parameters_of(node).items():
        fitted = broadcast(value, shape)
        assert fitted is not None  # infer_shapes has checked
        setattr(own, name, np.array(fitted))
    own.__post_init__()  # sets its types
    return own


def _check_time_constants(name: str, node: nir.NIRNode) -> None:
    for tau in ("tau", "tau_mem", "tau_syn"):
        value = np.asarray(getattr(node, tau, 0.0))
        if value.dtype.kind == "f" and np.isposinf(value).any():
            remedy = (
                "no NIR node has a current that never decays; give it a finite time constant"
                if tau == "tau_syn"
                else "without a leak it is NIR's IF: write it as one, with r = 1/dt where weights are added to the "
                "membrane unscaled (snnTorch's beta = 1)"
            )
            raise UnsupportedNodeError(f"node {name}: {tau} is infinite; {remedy}")


def _with_arrays(graph: nir.NIRGraph) -> nir.NIRGraph:
    """Return the graph with NumPy arrays only; `graph` itself if it has no others."""
    nodes = {
        name: _with_arrays(node) if isinstance(node, nir.NIRGraph) else _node_with_arrays(node)
        for name, node in graph.nodes.items()
    }
    if all(node is graph.nodes[name] for name, node in nodes.items()):
        return graph
    return nir.NIRGraph(nodes, list(graph.edges), metadata=graph.metadata, type_check=False)


def _node_with_arrays(node: nir.NIRNode) -> nir.NIRNode:
    values = {
        name: as_numpy(value)
        for name, value in parameters_of(node).items()
        if hasattr(value, "__array__") and not isinstance(value, np.ndarray | np.generic)
    }
    if hasattr(node, "bias"):
        weight = np.shape(node.weight)
        shape = (
            weight[:-1] if isinstance(node, nir.Affine) else weight[1:2] if isinstance(node, GraphConv) else weight[:1]
        )
        bias = np.float32(0) if node.bias is None else values.get("bias", node.bias)
        if np.shape(bias) != shape:
            fitted = broadcast(bias, shape)
            values |= {} if fitted is None else {"bias": np.array(fitted)}
    if not values:
        return node
    own = copy.copy(node)
    for name, value in values.items():
        setattr(own, name, value)
    return own


def as_numpy(value: Any) -> np.ndarray:
    """Convert a tensor on any device, or an array of another library; bit for bit where NumPy has its type."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return np.array(value.float() if value.dtype is torch.bfloat16 else value)
    return np.array(value)
