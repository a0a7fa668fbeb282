"""The loops among nodes that wait for each other, and the population at which the next loop is opened.

The waiting nodes form strongly connected components. As components only ever lose nodes, none has to be found twice:
each has a root, a tree of paths from the root, and a tree of paths to it. When nodes leave, only the paths through them
are repaired: a node in both trees is still in the root's component, and the others are divided into components again.
The components do not depend on the choice of roots. A root far from the evaluated nodes leaves late, and few paths lead
through the nodes that leave before it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import networkx

Key = tuple[bool, str]  # of a population: whether nothing evaluated reaches it, and its name; the smallest opens first
Edges = Mapping[str, Collection[str]]


@dataclass(eq=False)
class _Component:
    """Nodes that all reach one another."""

    members: set[str]
    root: str
    keys: list[Key]  # a heap: its populations, and some that have left it
    fed: int = 0  # edges from other components

    def first(self) -> Key | None:
        while self.keys and self.keys[0][1] not in self.members:
            heapq.heappop(self.keys)
        return self.keys[0] if self.keys else None


@dataclass
class _Tree:
    """For each node, the next one on a path to the root, which runs along the edges or against them."""

    towards: Edges  # the neighbours that a path to the root may take
    away: Edges
    step: dict[str, str] = field(default_factory=dict)

    def grow(self, root: str, members: set[str]) -> str:
        """Find the paths of all members; return the last member found, which is as far from the root as any."""
        found, new, last = {root}, deque([root]), root
        self.step.pop(root, None)
        while new:
            last = new.popleft()
            for name in self.away[last]:
                if name in members and name not in found:
                    found.add(name)
                    new.append(name)
                    self.step[name] = last
        return last

    def mend(self, members: set[str], gone: Iterable[str]) -> set[str]:
        """Reroute the members whose paths lead through nodes that are gone; return those left without a path."""
        cut: set[str] = set()
        new = list(gone)
        while new:
            name = new.pop()
            parted = [n for n in self.away[name] if n in members and self.step.get(n) == name]
            cut.update(parted)
            new += parted
        joined = deque[str]()
        for name in cut:
            other = next((n for n in self.towards[name] if n in members and n not in cut), None)
            if other is not None:
                self.step[name] = other
                joined.append(name)
        cut.difference_update(joined)
        while joined:
            name = joined.popleft()
            for n in self.away[name]:
                if n in cut:
                    cut.remove(n)
                    self.step[n] = name
                    joined.append(n)
        return cut


class Loops:
    """The strongly connected components of the waiting nodes."""

    def __init__(
        self, waiting: Iterable[str], sources: Edges, targets: Edges, key: Callable[[str], Key | None]
    ) -> None:
        """Divide the waiting nodes into components.

        Args:
            waiting: The nodes.
            sources: The sources of each node, each once, whether they wait or not.
            targets: The same edges, by source.
            key: Gives the key of a population, and None for any other node.
        """
        self._sources, self._targets, self._key = sources, targets, key
        self._from_root, self._to_root = _Tree(sources, targets), _Tree(targets, sources)
        self._of: dict[str, _Component] = {}
        self._first: list[Key] = []  # a heap: the first key of each component that no other feeds, and outdated keys
        self._divide(set(waiting))

    def first(self) -> str | None:
        """Return the population with the smallest key in the components that no other feeds; None if there is none."""
        while self._first:
            name = self._first[0][1]
            if name in self._of and not self._of[name].fed:
                return name
            heapq.heappop(self._first)
        return None

    def unfed(self) -> list[str]:
        """List the nodes of all components that no other feeds, sorted."""
        return sorted(name for name, component in self._of.items() if not component.fed)

    def lower(self, name: str) -> None:
        """Update a population's key, which has become smaller."""
        key = self._key(name)
        if key is not None:
            heapq.heappush(self._of[name].keys, key)
            self._offer(self._of[name])

    def leave(self, names: Collection[str]) -> None:
        """Remove nodes that no longer wait."""
        gone: dict[_Component, list[str]] = {}
        for name in names:
            component = self._of[name]
            component.members.remove(name)
            gone.setdefault(component, []).append(name)
            for target in self._around(self._targets, name):
                fed = self._of[target]
                if fed is not component:
                    fed.fed -= 1
                    self._offer(fed)
        for name in names:
            del self._of[name]
        for component, those in gone.items():
            self._mend(component, those)

    def _around(self, edges: Edges, name: str) -> Iterator[str]:
        return (n for n in edges[name] if n in self._of)

    def _offer(self, component: _Component) -> None:
        key = None if component.fed else component.first()
        if key is not None:
            heapq.heappush(self._first, key)

    def _mend(self, component: _Component, gone: list[str]) -> None:
        """Divide what is left of a component after the nodes `gone` have left it."""
        members = component.members
        if component.root not in members:
            self._divide(members)
            return
        lost = self._from_root.mend(members, gone)
        lost |= self._to_root.mend(members, gone)
        members -= lost
        for name in lost:
            component.fed -= sum(self._of[n] is not component for n in self._around(self._sources, name))
        component.fed += sum(n in members for name in lost for n in self._targets[name])
        self._divide(lost)
        self._offer(component)

    def _divide(self, names: set[str]) -> None:
        """Form components of nodes that belong to none, or to one that has lost them."""
        edges = networkx.DiGraph((name, n) for name in names for n in self._targets[name] if n in names)
        edges.add_nodes_from(names)
        made = [self._component(members) for members in networkx.strongly_connected_components(edges)]
        for component in made:
            self._of.update(dict.fromkeys(component.members, component))
        for component in made:
            for name in component.members:
                component.fed += sum(self._of[n] is not component for n in self._around(self._sources, name))
            self._offer(component)

    def _component(self, members: set[str]) -> _Component:
        keys = [key for name in members if (key := self._key(name)) is not None]
        heapq.heapify(keys)
        root = self._from_root.grow(keys[0][1] if keys else min(members), members)  # far from where it opens
        self._from_root.grow(root, members)
        self._to_root.grow(root, members)
        return _Component(members, root, keys)
