"""Time steps at which a balanced program handles its samples.

Samples stream back to back, one every S steps. Each population is reset at its own depth, and
counts inside its window only.
"""

from dataclasses import dataclass

from mksgn.deploy.errors import DeployError
from mksgn.deploy.program.program import Program
from mksgn.deploy.program.verify import delays_compensate


@dataclass(frozen=True)
class Window:
    """Time steps at which a population handles samples.

    Time step τ, counted from 0, is step (τ - offset) mod period of sample (τ - offset) div period.
    """

    offset: int
    period: int
    samples: int

    @property
    def end(self) -> int:
        return self.offset + self.period * self.samples

    def inside(self, step: int) -> bool:
        return self.offset <= step < self.end

    def starts_sample(self, step: int) -> bool:
        """Return whether state and synapse buffers are cleared before this step."""
        return (step - self.offset) % self.period == 0


def schedule(program: Program, samples: int, steps: int | None = None) -> dict[str, Window]:
    """Return the window of each population. Throughput is one sample every `steps` steps, whatever
    the depth.

    Args:
        program: a balanced program.
        samples: samples that stream through one instance of the network.
        steps: steps of a sample; None: those of the file.

    Raises:
        DeployError: the number of steps is not known, or the program is not balanced.
    """
    period = steps if steps is not None else program.steps
    if period is None or period < 1:
        raise DeployError("the graph does not say how many steps a sample has; give inputs with a step axis")
    for violation in delays_compensate(program):
        raise DeployError(f"{violation}; run the balance pass first")
    return {p.name: Window(p.depth, period, samples) for p in program.populations}


def run_length(program: Program, samples: int, steps: int | None = None) -> int:
    """Return the time steps until the last output of the last sample."""
    return max(window.end for window in schedule(program, samples, steps).values())
