"""Checks of every graph that is run: its parameters are real and finite, its edges lead from Inputs to Outputs."""

import math
from typing import Any

import nir
import numpy as np

from mksgn.common.errors import BadInputError
from mksgn.common.quoting import quoted
from mksgn.export.graph.shapes import parameters_of

NODES, EDGES = 1 << 16, 1 << 20  # 13 times the size that is stated to run, and 16 edges per node
SIGNAL_LIMIT = 1 << 28  # numbers in one step: 256 full Loihi 2 chips, and 1 GB
WINDOW_LIMIT = 1 << 17  # of kernel, stride, padding and dilation: an image of 128 k pixels, pooled as a whole
_COUNTS = {
    "groups": 1,
    "heads": 1,
    "kernel_size": 1,
    "stride": 1,
    "dilation": 1,
    "padding": 0,
}  # with their smallest values
_AXES = ("start_dim", "end_dim")
_SHAPES = ("input_shape",)


_EDGES = {"Input": "out of", "Output": "into"}


def check_graph(graph: nir.NIRGraph) -> None:
    """Check a graph that was read.

    Raises:
        BadInputError: No Input or Output; an edge at an unknown node, into an Input, or out of an Output; parameters
            that are not finite numbers; more nodes, edges or numbers than the limits.
    """
    for kind, ports in (("Input", graph.inputs), ("Output", graph.outputs)):
        if not ports:
            raise BadInputError(f"the graph has no {kind} node; add one, and an edge {_EDGES[kind]} it")
    _check_level(graph, "")


def _check_level(graph: nir.NIRGraph, prefix: str) -> None:
    if len(graph.nodes) > NODES or len(graph.edges) > EDGES:
        raise BadInputError(
            f"the graph has {len(graph.nodes):,} nodes and {len(graph.edges):,} edges, the limits are {NODES:,} and "
            f"{EDGES:,}; split it"
        )
    ends = set(graph.nodes) | {
        f"{name}.{port}"
        for name, node in graph.nodes.items()
        if isinstance(node, nir.NIRGraph)
        for port in (*node.inputs, *node.outputs)
    }
    for source, target in graph.edges:
        edge = f"edge {quoted(f'{prefix}{source}')} → {quoted(f'{prefix}{target}')}"
        if missing := [end for end in (source, target) if end not in ends]:
            raise BadInputError(f"{edge}: the graph has no node {quoted(missing[0])}; correct the edge")
        if isinstance(graph.nodes.get(target), nir.Input):
            raise BadInputError(f"{edge}: leads into an Input, which takes no edges; end it at the intended node")
        if isinstance(graph.nodes.get(source), nir.Output):
            raise BadInputError(
                f"{edge}: leads out of an Output, which no edge may leave; begin it at the intended node"
            )
    for name, node in graph.nodes.items():
        if isinstance(node, nir.NIRGraph):
            _check_level(node, f"{prefix}{name}.")
        else:
            check_node(f"{prefix}{name}", node)


def check_node(name: str, node: nir.NIRNode, error: type[BadInputError] = BadInputError) -> None:
    """Check a node's parameters.

    Args:
        name: The node's name.
        node: Any node but a graph.
        error: Class of the error.

    Raises:
        error: A parameter is not a finite number, or is out of range.
    """
    place = f"node {quoted(name) if not name.isprintable() else name}"
    if isinstance(node, (nir.Input, nir.Output)):
        _check_shape(place, "shape", next(iter((node.input_type or {}).values()), None), error)
        return
    for parameter, value in parameters_of(node).items():
        if value is None or (parameter == "padding" and isinstance(value, str)):
            continue
        numbers = np.asarray(value)
        if numbers.dtype.kind not in "biuf":
            raise error(f"{place}: {parameter} holds {_kind(numbers)}, expected real numbers; export the file again")
        if parameter in _SHAPES:
            _check_shape(place, parameter, numbers, error)
        elif parameter in _COUNTS or parameter in _AXES:
            _check_counts(place, parameter, numbers, error)
        elif numbers.dtype.kind == "f" and not _finite(parameter, numbers):
            raise error(f"{place}: {parameter} holds a value that is not finite; repair the file")


def _finite(parameter: str, numbers: np.ndarray) -> bool:
    """Return whether all are finite; an infinite time constant passes, since `standard_form` names the remedy."""
    if parameter.startswith("tau"):
        return not np.isnan(numbers).any() and not np.isneginf(numbers).any()
    return bool(np.isfinite(numbers).all())


def _kind(numbers: np.ndarray) -> str:
    return "complex numbers" if numbers.dtype.kind == "c" else f"{numbers.dtype.name.rstrip('0123456789')} values"


def _check_shape(place: str, parameter: str, value: Any, error: type[BadInputError]) -> None:
    sizes = np.asarray(value).ravel()
    if value is None or sizes.dtype.kind not in "iuf" or not sizes.size or (sizes != np.floor(sizes)).any():
        raise error(f"{place}: {parameter} is {quoted(value)}, expected whole numbers; export the file again")
    if sizes.min() < 1 or (size := math.prod(int(n) for n in sizes)) > SIGNAL_LIMIT:
        found = "a size below 1" if sizes.min() < 1 else f"{size:,} numbers, the limit is {SIGNAL_LIMIT:,}"
        raise error(f"{place}: {parameter} {quoted(sizes.tolist())} has {found}; correct it")


def _check_counts(place: str, parameter: str, numbers: np.ndarray, error: type[BadInputError]) -> None:
    low = -64 if parameter in _AXES else _COUNTS[parameter]  # HDF5 and NumPy have up to 64 axes
    high = SIGNAL_LIMIT if parameter in ("groups", "heads") else WINDOW_LIMIT
    whole = numbers.dtype.kind in "iu" or (numbers.dtype.kind == "f" and np.isfinite(numbers).all())
    if not whole or not numbers.size or (numbers != np.floor(numbers)).any():
        raise error(
            f"{place}: {parameter} is {quoted(numbers.tolist())}, expected whole numbers; export the file again"
        )
    if numbers.min() < low or numbers.max() > high:
        raise error(f"{place}: {parameter} is {quoted(numbers.tolist())}, expected {low} to {high:,}; correct it")
