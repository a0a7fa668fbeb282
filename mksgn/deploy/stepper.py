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

from mksgn.deploy.event_counts import coincidences, largest
from mksgn.deploy.kernels.population import fused_population
from mksgn.deploy.program.neurons import Membrane, State, prepare
from mksgn.deploy.program.program import AnyProjection, Population, Product, Program

# what a projection's source, by index, delivers at this step; None: nothing yet
Arrival = Callable[[AnyProjection, int], Tensor | None]


@dataclass(frozen=True)
class Received:
    """What one projection delivered: its inputs, the current that they cause, and a product's coincidences.

    If there is no current, a fused kernel computes it from the inputs.
    """

    projection: AnyProjection
    inputs: tuple[Tensor, ...]
    current: Tensor | None
    coincidences: float = 0.0


def receive(projection: AnyProjection, inputs: tuple[Tensor, ...]) -> Received:
    """Compute the current of inputs (N, *source shape)."""
    current = projection.current(inputs)
    count = coincidences(projection, current) if isinstance(projection, Product) else 0.0
    return Received(projection, inputs, current, count)


@dataclass(frozen=True)
class Step:
    """What one population did in a step. A read-out sends nothing: its current is the result.

    The largest |current| and |membrane potential before reset| are in weight units.
    """

    population: Population
    sent: Tensor | None
    received: tuple[Received, ...]
    current: Tensor | None = None
    max_current: float = 0.0
    max_membrane: float = 0.0
    coincidences: float = 0.0


class GroupStepper:
    """State of a group, from the start of a sample on."""

    def __init__(self, program: Program, members: tuple[Population, ...], device: torch.device | None = None):
        self.members, self.device = members, device or torch.device("cpu")
        self.incoming = {p.name: program.into(p.name) for p in members}
        fused = {p.name: fused_population(program, p, self.device) for p in members}
        self.fused = {name: plan for name, plan in fused.items() if plan is not None}
        self.states: dict[str, State] = {
            p.name: prepare(p.neuron, self.device, p.unit)
            for p in members
            if p.neuron is not None and p.name not in self.fused
        }
        self.late = {
            p.name: [(first, torch.from_numpy(bias).to(self.device)) for first, bias in p.late_biases] for p in members
        }
        own = [q for p in members for q in self.incoming[p.name] if any(s in self.incoming for s in q.sources)]
        self.longest = max((q.logical_delay for q in own), default=0)

    def start(self, samples: int) -> None:
        """Start a sample: all state starts anew, and nothing has been sent."""
        self.samples, self.index = samples, 0
        self.membranes: dict[str, Membrane] = {}
        self.fused_state = {name: fused.rest(samples) for name, fused in self.fused.items()}
        self.sent: dict[str, deque[Tensor]] = {p.name: deque(maxlen=self.longest + 1) for p in self.members}
        self.count = {p.name: 0 for p in self.members}  # steps sent

    def step(self, arrives: Arrival) -> list[Step]:
        """Run the group for one time step; `arrives` gives what comes from other groups."""
        done = []
        for population in self.members:
            received = self._receive(population, arrives)
            step = self._fire(population, received)
            if step.sent is not None:
                self.sent[population.name].append(step.sent)
                self.count[population.name] += 1
            done.append(step)
        self.index += 1
        return done

    def _fire(self, population: Population, received: tuple[Received, ...]) -> Step:
        name = population.name
        current = self._sum(population, received)
        if name in self.fused:
            return self._fire_fused(population, received, current)
        if current is None:
            current = torch.zeros((self.samples, *population.shape), device=self.device)
        if name not in self.states:
            return Step(population, None, received, current)
        state = self.states[name]
        if name not in self.membranes:
            self.membranes[name] = state.start(current)
        sent, self.membranes[name], membrane = state.step(current, self.membranes[name])
        sent = sent.to(torch.uint8) if population.fires else sent
        count = sum(r.coincidences for r in received)
        return Step(population, sent, received, current, largest(current), largest(membrane) / state.scale, count)

    def _fire_fused(self, population: Population, received: tuple[Received, ...], current: Tensor | None) -> Step:
        fused = self.fused[population.name]
        arrived = {r.projection: r.inputs for r in received}
        arrivals: list[tuple[Tensor | None, int]] = []
        for projection in fused.projections:
            inputs = arrived.get(projection, (None,) * len(projection.sources))
            arrivals += [(None if x is None else x[None], 0) for x in inputs]
        extra = None if current is None else current[None]
        fired = fused.run(arrivals, extra, (1, self.samples), self.fused_state[population.name])
        return Step(
            population, fired.spikes[0], received, None, fired.max_current, fired.max_membrane, fired.coincidences
        )

    def _receive(self, population: Population, arrives: Arrival) -> tuple[Received, ...]:
        fused = self.fused.get(population.name)
        received = []
        for projection in self.incoming[population.name]:
            inputs = []
            for i, source in enumerate(projection.sources):
                x = self._own(source, projection.logical_delay) if source in self.sent else arrives(projection, i)
                if x is None:
                    break
                inputs.append(x)
            else:
                if fused is not None and projection in fused.projections:
                    received.append(Received(projection, tuple(inputs), None))
                else:
                    received.append(receive(projection, tuple(inputs)))
        return tuple(received)

    def _own(self, source: str, logical_delay: int) -> Tensor | None:
        """Return what a member sent `logical_delay` steps ago; one that is evaluated later has not
        sent in this step yet.
        """
        back = len(self.sent[source]) - self.count[source] + self.index - logical_delay
        return self.sent[source][back] if self.index >= logical_delay else None

    def _sum(self, population: Population, received: tuple[Received, ...]) -> Tensor | None:
        """Sum the currents, (samples, *shape); None where there is none."""
        total: Tensor | None = None
        for delivery in received:
            if delivery.current is not None:
                total = delivery.current if total is None else total + delivery.current
        for first, bias in self.late[population.name]:
            if self.index >= first:
                total = bias.expand(self.samples, *population.shape) if total is None else total + bias
        return total
