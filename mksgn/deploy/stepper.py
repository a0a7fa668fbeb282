"""One execution group, a time step at a time. Lava's leaf Processes run it, and the emulator runs
loops with it.

Spikes are uint8, (samples, *shape). Currents, and membrane potentials that are an output, are
float32.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mksgn.deploy.program.neurons import Membrane, State, prepare
from mksgn.deploy.program.program import AnyProjection, Population, Program

# what a projection's source, by index, delivers at this step; None: nothing yet
Arrival = Callable[[AnyProjection, int], Tensor | None]


@dataclass(frozen=True)
class Received:
    """What one projection delivered in a step: its inputs, and the current that they cause."""

    projection: AnyProjection
    inputs: tuple[Tensor, ...]
    current: Tensor


@dataclass(frozen=True)
class Step:
    """What one population did in a step. A read-out sends nothing: its current is the result."""

    population: Population
    sent: Tensor | None
    current: Tensor
    membrane: Tensor | None  # potential before reset, times the state's scale
    received: tuple[Received, ...]


class GroupStepper:
    """State of a group, from the start of a sample of `steps` steps on."""

    def __init__(
        self, program: Program, members: tuple[Population, ...], steps: int, device: torch.device | None = None
    ):
        self.members, self.device = members, device or torch.device("cpu")
        self.incoming = {p.name: program.into(p.name) for p in members}
        self.states: dict[str, State] = {
            p.name: prepare(p.neuron, self.device, p.unit, steps) for p in members if p.neuron is not None
        }
        self.late = {
            p.name: [(first, torch.from_numpy(bias).to(self.device)) for first, bias in p.late_biases] for p in members
        }
        own = [q for p in members for q in self.incoming[p.name] if any(s in self.incoming for s in q.sources)]
        self.longest = max((q.logical_delay for q in own), default=0)

    def start(self, samples: int) -> None:
        """Start a sample: all state is 0, and nothing was sent."""
        self.samples, self.index = samples, 0
        self.membranes: dict[str, Membrane] = {}
        self.sent: dict[str, deque[Tensor]] = {p.name: deque(maxlen=self.longest + 1) for p in self.members}
        self.count = {p.name: 0 for p in self.members}  # steps sent

    def step(self, arrives: Arrival) -> list[Step]:
        """Run the group for one time step; `arrives` gives what comes from other groups."""
        done = []
        for population in self.members:
            received = self._receive(population, arrives)
            current = self._sum(population, received)
            sent = membrane = None
            state = self.states.get(population.name)
            if state is not None:
                if population.name not in self.membranes:
                    self.membranes[population.name] = state.start(current)
                sent, self.membranes[population.name], membrane = state.step(current, self.membranes[population.name])
                sent = sent.to(torch.uint8) if population.fires else sent
                self.sent[population.name].append(sent)
                self.count[population.name] += 1
            done.append(Step(population, sent, current, membrane, received))
        self.index += 1
        return done

    def _receive(self, population: Population, arrives: Arrival) -> tuple[Received, ...]:
        received = []
        for projection in self.incoming[population.name]:
            inputs = []
            for i, source in enumerate(projection.sources):
                x = self._own(source, projection.logical_delay) if source in self.sent else arrives(projection, i)
                if x is None:
                    break
                inputs.append(x)
            else:
                received.append(Received(projection, tuple(inputs), projection.current(tuple(inputs))))
        return tuple(received)

    def _own(self, source: str, logical_delay: int) -> Tensor | None:
        """Return what a member sent `logical_delay` steps ago; one that is evaluated later has not
        sent in this step yet.
        """
        back = len(self.sent[source]) - self.count[source] + self.index - logical_delay
        return self.sent[source][back] if self.index >= logical_delay else None

    def _sum(self, population: Population, received: tuple[Received, ...]) -> Tensor:
        total: Tensor | None = None
        for delivery in received:
            total = delivery.current if total is None else total + delivery.current
        for first, bias in self.late[population.name]:
            if self.index >= first:
                total = bias.expand(self.samples, *population.shape) if total is None else total + bias
        if total is None:
            return torch.zeros((self.samples, *population.shape), device=self.device)
        return total
