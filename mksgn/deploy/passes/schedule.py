"""Samples stream back to back, one every S steps; each population is reset at its own offset and counted inside its window only."""

from __future__ import annotations

from dataclasses import dataclass

from mksgn.deploy.errors import DeployError
from mksgn.deploy.program.program import Program


@dataclass(frozen=True)
class Window:
    """When a population handles samples: time step τ (from 0) is step (τ - offset) mod period of sample (τ - offset) div period."""

    offset: int
    period: int
    samples: int

    @property
    def end(self) -> int:
        return self.offset + self.period * self.samples

    def inside(self, step: int) -> bool:
        return self.offset <= step < self.end

    def starts_sample(self, step: int) -> bool:
        """State and synapse buffers are cleared before this step."""
        return (step - self.offset) % self.period == 0


def schedule(program: Program, samples: int, steps: int | None = None) -> dict[str, Window]:
    """A window per population, for a balanced program. Throughput is one sample every `steps` steps, whatever the depth."""
    period = steps if steps is not None else program.steps
    if period is None or period < 1:
        raise DeployError("the graph does not say how many steps a sample has; give inputs with a step axis")
    for projection in program.projections:
        for index, source in enumerate(projection.sources):
            if program.arrival_delay(projection, index) != projection.logical_delay:
                raise DeployError(
                    f"projection {projection.name}: spikes of {source} arrive at another step; run the balance pass first"
                )
    return {p.name: Window(p.depth, period, samples) for p in program.populations}


def run_length(program: Program, samples: int, steps: int | None = None) -> int:
    """Time steps until the last output of the last sample is there."""
    return max(window.end for window in schedule(program, samples, steps).values())
