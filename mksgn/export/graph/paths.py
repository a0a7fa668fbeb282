"""Linear paths: how signals travel from population to population through linear nodes.

Linear nodes and delays commute with sums. Any feed-forward net of them between populations is
therefore a sum over its paths, each of which starts at one population, attention node or input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import nir

from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.kinds import LINEAR

PATHS_LIMIT = 256  # into one node; joins in series multiply them


@dataclass(frozen=True)
class LinearPath:
    """A path from `source` through linear `nodes`, in the order in which the signal passes them.

    `delay` counts time steps: one for each edge that closes a loop, and what a subclass adds.
    """

    source: str
    nodes: tuple[str, ...] = ()
    delay: int = 0


Path = TypeVar("Path", bound=LinearPath)
Value = TypeVar("Value")


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
            f"node {name}: {len(paths)} linear paths lead into it, more than {PATHS_LIMIT}; put a population between them"
        )
    return paths


class LinearWalk(ABC, Generic[Value]):
    """A walk backwards along the linear nodes of a flat graph, in which each node is visited once.

    A subclass says what a node's output is: `start` for a node that is not linear, `through` for a
    linear one, `join` for the sum over incoming edges, `late` for a value of earlier time steps.
    """

    def __init__(self, nodes: Mapping[str, nir.NIRNode], edges: Iterable[tuple[str, str]], order: list[str]):
        """`order` is that of evaluation: an edge from a later node closes a loop, and takes one time step."""
        self.nodes = nodes
        self.position = {name: i for i, name in enumerate(order)}
        self.sources: dict[str, list[str]] = {name: [] for name in nodes}
        for source, target in sorted((a, b) for a, b in edges):
            self.sources[target].append(source)
        self.outputs: dict[str, Value] = {}  # of each linear node visited
        self._open: list[str] = []

    @abstractmethod
    def start(self, name: str) -> Value: ...

    @abstractmethod
    def through(self, name: str, node: nir.NIRNode, value: Value) -> Value: ...

    @abstractmethod
    def join(self, name: str, values: list[Value]) -> Value: ...

    @abstractmethod
    def late(self, value: Value, steps: int) -> Value: ...

    def into(self, name: str) -> Value:
        """The sum over the edges into a node. Raises UnsupportedNodeError where no edge leads into one."""
        if not self.sources[name]:
            raise UnsupportedNodeError(f"node {name}: no edge leads into it; connect it, or leave it out")
        values = []
        for source in self.sources[name]:
            closes_loop = self.position[source] >= self.position[name]
            values.append(self.late(self.output(source), 1) if closes_loop else self.output(source))
        return self.join(name, values)

    def output(self, name: str) -> Value:
        """What a node puts out. Raises UnsupportedNodeError for a loop of linear nodes alone."""
        node = self.nodes[name]
        if not isinstance(node, LINEAR):
            return self.start(name)
        if name not in self.outputs:
            if name in self._open:
                loop = ", ".join(self._open[self._open.index(name) :])
                raise UnsupportedNodeError(f"nodes {loop}: a loop without a population in it; put one there")
            self._open.append(name)
            self.outputs[name] = self.through(name, node, self.into(name))
            self._open.pop()
        return self.outputs[name]
