"""What SANA-FE's model of Loihi 1 cannot run: the first obstacle in a program or in a run, in one line."""

from mksgn.deploy.execution import Execution
from mksgn.deploy.placement import check
from mksgn.deploy.placement.chips import LOIHI1
from mksgn.deploy.placement.place import Placement
from mksgn.deploy.program.neurons import FixedNeuron
from mksgn.deploy.program.program import AnyProjection, Population, Product, Program
from mksgn.export.loihi import MEMBRANE_MAX, SUB_UNITS

LONGEST_DELAY = 5  # of its model accumulator_with_delay, besides the step that a synapse costs
INPUTS_PER_CORE = 1024  # units loihi_inputs[0..1023] of loihi.yaml: each holds one spike train


def refusal(placement: Placement, input_neurons: int) -> str | None:
    """Say which part of a program SANA-FE cannot run, and why; None if it can run all of it.

    Args:
        placement: the program on LOIHI1.
        input_neurons: neurons outside the placement: those of inputs, and of what the host sends.
    """
    program = placement.program
    if program.precision != "fixed":
        return "a float program has no integer weights; quantise it (--calibration), and run it with --precision fixed"
    for projection in program.projections:
        if program[projection.target].location == "chip" and (why := _projection(program, projection)):
            return f"{projection.name}: {why}"
    for population in program.populations:
        if population.location == "chip" and population.kind != "input" and (why := _population(population)):
            return f"{population.name}: {why}"
    if violations := check.check(placement, LOIHI1):
        return violations[0]
    cores = placement.cores + -(-input_neurons // INPUTS_PER_CORE)
    if cores > LOIHI1.cores:
        return (
            f"{placement.cores} cores and {cores - placement.cores} for {input_neurons:,} inputs exceed the "
            f"{LOIHI1.cores} of its one chip; use fewer channels or frames"
        )
    return None


def clipped(program: Program, execution: Execution) -> str | None:
    """Say which membrane of a run was clipped at 24 bits, which SANA-FE does not do; None if none was."""
    for name, counters in execution.counters.items():
        if program[name].location == "chip" and counters.max_membrane >= MEMBRANE_MAX / SUB_UNITS:
            return (
                f"{name}: its membrane reaches {counters.max_membrane:,.0f}, where Loihi's 24 bits clip it and "
                "SANA-FE's do not; quantise with fewer bits"
            )
    return None


def steps_of(program: Program, projection: AnyProjection, index: int) -> int:
    """Return the time steps from a spike of a source to the membrane of the target."""
    if program.crosses_synapses(projection, projection.sources[index]):
        return 1 + program.synaptic_delay(projection, index)
    return projection.logical_delay


def _projection(program: Program, projection: AnyProjection) -> str | None:
    if isinstance(projection, Product):
        return "attention's product has no neuron in SANA-FE; train with student.attention=token or none"
    steps = steps_of(program, projection, 0)
    if steps < 1:
        return f"acts within the time step of {projection.source}, and in SANA-FE every synapse costs a step"
    if steps > 1 + LONGEST_DELAY:
        return f"synaptic delay ({steps - 1}) exceeds limit ({LONGEST_DELAY}) of SANA-FE; put populations into the short branch"
    return None


def _population(population: Population) -> str | None:
    neuron = population.neuron
    if population.late_biases:
        return (
            "its bias begins late, through a Delay, and SANA-FE's acts from the first step; move the bias after the "
            "Delay"
        )
    if not isinstance(neuron, FixedNeuron):
        return None
    if neuron.du is not None:
        return (
            "its synaptic current has a memory, which SANA-FE decays in float64 and Loihi in integers; "
            "use neurons without one (LIF)"
        )
    if neuron.initial is not None:
        return (
            "starts from a membrane other than 0, which the steps before its first one would change; use --v-init zero"
        )
    return None
