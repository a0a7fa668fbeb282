"""The energies of an execution without a record, as mksgn-deploy prints them."""

from collections.abc import Iterator

from mksgn.bench import counters, summary
from mksgn.bench.energy_models import known_models, price
from mksgn.deploy.execution import Execution
from mksgn.deploy.placement.chips import LOIHI2
from mksgn.deploy.placement.place import place
from mksgn.deploy.program.program import Program


def energy_lines(program: Program, execution: Execution, samples: int, unit: str) -> Iterator[str]:
    """Yield synaptic operations per sample, and the energy under each energy model, a line each.

    Args:
        program: The compiled network.
        execution: Its execution; messages are those of a placement on Loihi 2.
        samples: Samples of the execution; several bodies of a clip are one sample.
        unit: What a sample is called.
    """
    once = 1 if execution.constant else execution.steps
    rows = counters.layers(program, execution, place(program, LOIHI2), encoder_steps=once)
    totals = counters.totals(program, execution, rows, samples, encoder_steps=once)
    yield f"syn_ops per {unit}: {totals.syn_ops:,.0f}"
    yield from summary.energy_lines((price(model, totals, steps=execution.steps) for model in known_models()), unit)
