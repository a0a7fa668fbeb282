"""The work of a leaf Process: planned in the parent, done in the leaf's own OS process.

parent                                     child, one per leaf
------                                     -------------------
plan = LeafPlan(...)                       (forked by Lava: inherits the plan and its results)
Leaf(plan=plan)           -- fork -->      worker = LeafWorker(plan)
GuardedRuntime.run(...)                    each time step: send worker.message, then
                                           worker.step(step, messages received)
plan.results[...]         <-- shared --    ResultWriter writes each population's SharedResults
    .counters(), .spike_trains(),
    .outputs()
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mksgn.deploy.kernels.population import fused_population
from mksgn.deploy.lava.messages import Layout
from mksgn.deploy.lava.results import ResultWriter, SharedResults
from mksgn.deploy.passes.schedule import Window
from mksgn.deploy.program.program import AnyProjection, Population, Program
from mksgn.deploy.stepper import GroupStepper


@dataclass(eq=False)
class LeafPlan:
    """What a leaf receives, computes and sends, and where its results go. Made in the parent.

    `members` are the populations of one execution group; `sources` and `sends` are the layouts of
    the messages. `keep` names the populations whose spike trains or values are kept.
    """

    program: Program
    members: tuple[Population, ...]
    sources: list[Layout]
    sends: Layout
    window: Window
    slots: int
    samples: int
    keep: set[str]
    results: dict[str, SharedResults] = field(init=False)

    def __post_init__(self) -> None:
        self.results = {
            p.name: SharedResults(
                p, self.window, self.slots, self.samples, p.name in self.keep, len(self.program.into(p.name))
            )
            for p in self.members
        }
        for projection in self.projections:  # cached in the program, for all children that are forked from here
            self.program.fan_outs(projection)
            self.program.fan_outs(projection, nonzero=True)
        # the kernels are planned and compiled here, once for all children
        for population in self.members:
            fused = fused_population(self.program, population, torch.device("cpu"))
            if fused is not None:
                fused.compile()

    @property
    def projections(self) -> list[AnyProjection]:
        """The projections into the members."""
        return [projection for p in self.members for projection in self.program.into(p.name)]


class LeafWorker:
    """Computes a leaf's time steps, in the child. All state starts anew in each sample."""

    def __init__(self, plan: LeafPlan):
        self.plan = plan
        self.sender = {p.name: i for i, layout in enumerate(plan.sources) for p in layout.populations}
        lengths = [1] * len(plan.sources)
        for projection in plan.projections:
            for i, source in enumerate(projection.sources):
                if source in self.sender:
                    sender, delay = self.sender[source], plan.program.synaptic_delay(projection, i)
                    lengths[sender] = max(lengths[sender], 1 + delay)
        self.buffers: list[deque[np.ndarray]] = [deque(maxlen=length) for length in lengths]
        self.group = GroupStepper(plan.program, plan.members)
        self.writers = {name: ResultWriter(plan.program, results) for name, results in plan.results.items()}
        self.sent_names = {p.name for p in plan.sends.populations}
        self.message = plan.sends.silence()

    @torch.no_grad()
    def step(self, step: int, received: list[np.ndarray]) -> None:
        """Compute one time step, and the `message` to send in the next.

        Args:
            step: counts from 0.
            received: the previous step's messages, in the order of the plan's sources.
        """
        for buffer, message in zip(self.buffers, received, strict=True):
            buffer.append(message)
        window, slots = self.plan.window, self.plan.slots
        if not window.inside(step):
            self.message.fill(0)
            return
        index = step - window.offset
        self.active = min(slots, self.plan.samples - index // window.period * slots)
        if window.starts_sample(step):
            self.group.start(self.active)
            self.message.fill(0)
        for done in self.group.step(self._arrives):
            name = done.population.name
            self.writers[name].write(index, done)
            if done.sent is not None and name in self.sent_names:
                self.plan.sends.pack(self.message, name, done.sent)

    def _arrives(self, projection: AnyProjection, index: int) -> Tensor | None:
        if self.group.index < projection.logical_delay:  # what arrives belongs to the previous sample
            return None
        sender = self.sender[projection.sources[index]]
        message = self.buffers[sender][-1 - projection.compensation_delays[index] - projection.logical_delay]
        return self.plan.sources[sender].unpack(message, projection.sources[index], self.active)
