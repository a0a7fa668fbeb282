"""Linear paths: how signals travel from population to population through linear nodes.

Linear nodes and delays commute with sums. Any feed-forward net of them between populations is
therefore a sum over its paths, each of which starts at one population, attention node or input.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import nir
import numpy as np

from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.kinds import FIRING, GRADED, LINEAR
from mksgn.export.graph.nodes import SpikingSelfAttention

PATHS_LIMIT = 256  # into one node; joins in series multiply them
SOURCES = (nir.Input, *FIRING, *GRADED, SpikingSelfAttention)


@dataclass(frozen=True)
class LinearPath:
    """A path from `source` through linear `nodes`, in the order in which the signal passes them.

    `delay` counts time steps: one where the path closes a loop, and what a subclass adds.
    """

    source: str
    nodes: tuple[str, ...] = ()
    delay: int = 0


Path = TypeVar("Path", bound=LinearPath)


def extended(paths: Iterable[Path], name: str) -> tuple[Path, ...]:
    """The same paths, through the node `name` as well."""
    return tuple(replace(path, nodes=(*path.nodes, name)) for path in paths)


def delayed(paths: Iterable[Path], steps: int) -> tuple[Path, ...]:
    """The same paths, `steps` time steps later."""
    return tuple(replace(path, delay=path.delay + steps) for path in paths)


def joined(name: str, incoming: Iterable[tuple[Path, ...]]) -> tuple[Path, ...]:
    """All paths into the node `name`. Raises UnsupportedNodeError for more than PATHS_LIMIT."""
    paths = tuple(path for group in incoming for path in group)
    if len(paths) > PATHS_LIMIT:
        raise UnsupportedNodeError(
            f"node {name}: {len(paths)} linear paths lead into it, more than {PATHS_LIMIT}; "
            "put a population between them"
        )
    return paths


class LinearPaths:
    """The linear paths into each node of a flat graph, from a walk that visits each linear node once.

    A node's value is the tuple of its paths. A subclass that carries more along overrides `start` (a
    source's value), `through` (a linear node's), `join` (a sum over edges) and `retimed` (with other paths).
    """

    def __init__(self, graph: nir.NIRGraph, edges: Iterable[Sequence[str]], order: list[str]) -> None:
        """`order` is that of evaluation: a path from a source to one no later closes a loop, and takes a time step."""
        self.graph = graph
        self.position = {name: i for i, name in enumerate(order)}
        self.sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
        for source, target in sorted((a, b) for a, b in edges):
            self.sources[target].append(source)
        self.outputs: dict[str, Any] = {}  # of the linear nodes visited
        self._open: list[str] = []

    def start(self, name: str) -> Any:
        return (LinearPath(name),)

    def through(self, name: str, node: nir.NIRNode, value: Any) -> Any:
        return extended(value, name)

    def join(self, name: str, values: list[Any]) -> Any:
        return joined(name, values)

    def retimed(self, value: Any, retime: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Any:
        return retime(value)

    def into(self, name: str) -> Any:
        """The sum over the edges into a population or Output. Raises UnsupportedNodeError where there are none."""

        def closing_loops(paths: tuple[Path, ...]) -> tuple[Path, ...]:
            late = [self.position[path.source] >= self.position[name] for path in paths]
            return tuple(replace(path, delay=path.delay + one) for path, one in zip(paths, late, strict=True))

        return self.retimed(self._sum(name), closing_loops)

    def _sum(self, name: str) -> Any:
        if not self.sources[name]:
            raise UnsupportedNodeError(f"node {name}: no edge leads into it; connect it, or leave it out")
        return self.join(name, [self.output(source) for source in self.sources[name]])

    def output(self, name: str) -> Any:
        """What a node puts out. Raises UnsupportedNodeError for a loop of linear nodes, and for what is no source."""
        node = self.graph.nodes[name]
        if isinstance(node, SOURCES):
            return self.start(name)
        if not isinstance(node, LINEAR):
            raise UnsupportedNodeError(
                f"node {name}: an edge leads out of this {type(node).__name__}; end the graph there"
            )
        if name not in self.outputs:
            if name in self._open:
                loop = ", ".join(self._open[self._open.index(name) :])
                raise UnsupportedNodeError(f"nodes {loop}: a loop without a population in it; put one there")
            self._open.append(name)
            self.outputs[name] = self.through(name, node, self._sum(name))
            self._open.pop()
        return self.outputs[name]


def source_shape(graph: nir.NIRGraph, name: str) -> tuple[int, ...]:
    """The output shape of a population, attention node or input."""
    node = graph.nodes[name]
    if isinstance(node, nir.Input):
        return tuple(int(n) for n in node.input_type["input"])
    if isinstance(node, SpikingSelfAttention):
        stacked, *rest = source_shape(graph, next(a for a, b in graph.edges if b == name))
        return (stacked // 3, *rest)
    return np.shape(node.threshold if isinstance(node, nir.Threshold) else node.r)
