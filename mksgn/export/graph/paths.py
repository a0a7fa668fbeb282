"""Linear paths: how signals travel from population to population through linear nodes.

Linear nodes and delays commute with sums. Any feed-forward net of them between populations is
therefore a sum over its paths, each of which starts at one population, attention node or input.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import nir
import numpy as np

from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.kinds import FIRING, GRADED, LINEAR
from mksgn.export.graph.nodes import SpikingSelfAttention

PATHS_LIMIT = 256  # into one node; joins in series multiply them
# What a walk has passed: the trail so far, the last node, and what a subclass adds. A tuple of the names would be
# copied at every node, at a cost in time and memory that grows with the square of the length.
Trail = tuple[Any, str, tuple[Any, ...]]
SOURCES = (nir.Input, *FIRING, *GRADED, SpikingSelfAttention)

Path = TypeVar("Path", bound="LinearPath")


@dataclass(frozen=True)
class LinearPath:
    """A path from `source` through linear `nodes`, in the order in which the signal passes them.

    `delay` counts time steps: one if the path closes a loop, plus what a subclass adds. `trail` holds the nodes
    during the walk.
    """

    source: str
    nodes: tuple[str, ...] = ()
    delay: int = 0
    trail: Trail | None = field(default=None, compare=False, repr=False)

    def arrived(self: Path, more_delay: int) -> Path:
        """Return the finished path, with its nodes in place of the trail."""
        return replace(self, nodes=tuple(name for name, _ in self.passed()), trail=None, delay=self.delay + more_delay)

    def passed(self) -> list[tuple[str, tuple[Any, ...]]]:
        """Return what the trail holds, in the order of the signal."""
        backwards: list[tuple[str, tuple[Any, ...]]] = []
        trail = self.trail
        while trail is not None:
            trail, name, added = trail
            backwards.append((name, added))
        return backwards[::-1]


def extended(paths: Iterable[Path], name: str, added: tuple[Any, ...] = ()) -> tuple[Path, ...]:
    """Extend the paths through the node `name`, with what a subclass adds."""
    return tuple(replace(path, trail=(path.trail, name, added)) for path in paths)


def delayed(paths: Iterable[Path], steps: int) -> tuple[Path, ...]:
    """Delay the paths by `steps` time steps."""
    return tuple(replace(path, delay=path.delay + steps) for path in paths)


def joined(name: str, incoming: Iterable[tuple[Path, ...]]) -> tuple[Path, ...]:
    """Join all paths into the node `name`. Raises UnsupportedNodeError for more than PATHS_LIMIT."""
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
        """`order` is that of evaluation: a path to a node no later than its source closes a loop, and takes a step."""
        self.graph = graph
        self.position = {name: i for i, name in enumerate(order)}
        self.sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
        for source, target in sorted((a, b) for a, b in edges):
            self.sources[target].append(source)
        self.outputs: dict[str, Any] = {}  # of the linear nodes visited

    def start(self, name: str) -> Any:
        return (LinearPath(name),)

    def through(self, name: str, node: nir.NIRNode, value: Any) -> Any:
        return extended(value, name)

    def join(self, name: str, values: list[Any]) -> Any:
        return joined(name, values)

    def retimed(self, value: Any, retime: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Any:
        return retime(value)

    def into(self, name: str) -> Any:
        """Return the sum over the edges into a population or Output. Raises UnsupportedNodeError if there are none."""

        def closing_loops(paths: tuple[Path, ...]) -> tuple[Path, ...]:
            return tuple(path.arrived(self.position[path.source] >= self.position[name]) for path in paths)

        return self.retimed(self.join(name, [self.output(source) for source in self._before(name)]), closing_loops)

    def _before(self, name: str) -> Iterator[str]:
        if not self.sources[name]:
            raise UnsupportedNodeError(f"node {name}: no edge leads into it; connect it, or leave it out")
        return iter(self.sources[name])

    def output(self, name: str) -> Any:
        """Return a node's output. Raises UnsupportedNodeError for linear loops, and for nodes that are no sources."""
        waiting = {} if self._is_known(name) else {name: self._before(name)}  # depth first, without recursion
        while waiting:
            last = next(reversed(waiting))
            source = next((s for s in waiting[last] if not self._is_known(s)), None)
            if source is None:
                del waiting[last]
                total = self.join(last, [self._known(s) for s in self.sources[last]])
                self.outputs[last] = self.through(last, self.graph.nodes[last], total)
            elif source in waiting:
                names = list(waiting)
                loop = ", ".join(names[names.index(source) :])
                raise UnsupportedNodeError(f"nodes {loop}: a loop without a population in it; put one there")
            else:
                waiting[source] = self._before(source)
        return self._known(name)

    def _is_known(self, name: str) -> bool:
        """Return whether a node's output is known without those of other nodes."""
        node = self.graph.nodes[name]
        if name in self.outputs or isinstance(node, SOURCES):
            return True
        if not isinstance(node, LINEAR):
            raise UnsupportedNodeError(
                f"node {name}: an edge leads out of this {type(node).__name__}; end the graph there"
            )
        return False

    def _known(self, name: str) -> Any:
        return self.outputs[name] if name in self.outputs else self.start(name)


def source_shape(graph: nir.NIRGraph, name: str) -> tuple[int, ...]:
    """Return the output shape of a population, attention node or input."""
    node = graph.nodes[name]
    if isinstance(node, nir.Input):
        return tuple(int(n) for n in node.input_type["input"])
    if isinstance(node, SpikingSelfAttention):
        stacked, *rest = source_shape(graph, next(a for a, b in graph.edges if b == name))
        return (stacked // 3, *rest)
    return np.shape(node.threshold if isinstance(node, nir.Threshold) else node.r)
