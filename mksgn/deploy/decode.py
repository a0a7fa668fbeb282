"""From the values of an output at each step to a prediction: one score per class and sample."""

from dataclasses import dataclass

import numpy as np

from mksgn.deploy.choices import DECODINGS
from mksgn.deploy.errors import DeployError
from mksgn.deploy.execution import Execution
from mksgn.deploy.program.program import Program


@dataclass(frozen=True)
class Decoding:
    """How an output's values over the steps become scores.

    sum: their sum. max: the largest. last: that of the last step. first-spike: the earlier a neuron
    first fires, the higher; of those that fire at the same step, the one with more spikes scores
    higher. The prediction is the class with the largest score; of equal scores, the first.

    Args:
        how: One of DECODINGS.
        output: Name of the output; "" for the only one.
    """

    how: str = "sum"
    output: str = ""

    @classmethod
    def of(cls, text: str) -> "Decoding":
        """Read HOW or HOW@OUTPUT. Raises DeployError for another word."""
        how, _, output = text.partition("@")
        if how not in DECODINGS:
            raise DeployError(f"decode {text!r}: choose {', '.join(DECODINGS)}, and with several outputs HOW@OUTPUT")
        return cls(how, output)

    def __str__(self) -> str:
        return f"{self.how}@{self.output}" if self.output else self.how

    def check(self, program: Program) -> str:
        """Return the name of the output. Raises DeployError if the program has none that can be decoded this way."""
        names = {output.name: output.population for output in program.outputs}
        if not self.output and len(names) != 1:
            raise DeployError(
                f"the graph has {len(names)} outputs ({', '.join(names) or 'none'}): say which is decoded, "
                f"{self.how}@{next(iter(names), 'OUTPUT')}"
            )
        name = self.output or next(iter(names))
        if name not in names:
            raise DeployError(f"decode {self}: the graph has no such output; it has {', '.join(names)}")
        if self.how == "first-spike" and not program.sends_spikes(names[name]):
            raise DeployError(
                f"decode first-spike: the output {name} gives membrane potentials, not spikes; choose sum, max or last"
            )
        return name

    def scores(self, program: Program, execution: Execution) -> np.ndarray:
        """Return (samples, classes) of an execution; a score's unit depends on `how`."""
        values = execution.outputs[self.check(program)]
        values = values.reshape(*values.shape[:2], -1)
        if self.how == "max":
            return values.max(1)
        if self.how == "last":
            return values[:, -1]
        mean = values.mean(1)  # has the same order as the sum
        if self.how == "sum":
            return mean
        fired = values != 0
        earliness = np.where(fired.any(1), values.shape[1] - fired.argmax(1), 0)
        return earliness + mean / 2  # the mean of spikes is at most 1
