"""What deploy does with each node: the table in docs/deploy.md is generated from this, and a test runs each line."""

from dataclasses import dataclass

import nir

from mksgn.export.graph.nodes import GraphConv, SpikingSelfAttention


@dataclass(frozen=True)
class Primitive:
    """How a node runs, in the emulator and in Lava alike."""

    node: type[nir.NIRNode]
    floats: str  # in floating point
    fixed: str | None  # in fixed point; None: refused
    refused: str = ""  # what an error names, and why


# the last two columns of a node that outputs its membrane potential
MEMBRANE = "runs if an Output reads it", "fixed: as a source of synapses, which take spikes"

PRIMITIVES = (
    Primitive(
        nir.Input,
        "spikes, or currents if it is `analog`",
        "spikes; an analog input stays on the host up to its first spikes",
    ),
    Primitive(nir.Output, "a population's spikes or membrane, or a sum of synapses", "the same, dequantised"),
    Primitive(
        nir.Affine,
        "runs; its bias becomes the population's",
        "runs",
        "fixed: its bias after a Delay (Loihi's bias acts "
        "from the first step), before a pool, or on the last of several axes",
    ),
    Primitive(
        nir.Linear,
        "runs; on the last axis, or with one matrix per index of the preceding axes",
        "runs",
        "fixed: in series with another weighted node that it does not merge with (Linear merges with Linear, and with "
        "a Scale per channel)",
    ),
    Primitive(nir.Scale, "runs", "runs; merged into an adjacent weighted node if it has one value per channel"),
    Primitive(nir.Conv1d, "runs: stride, padding, dilation, groups", "runs"),
    Primitive(nir.Conv2d, "runs: the same, and non-square kernels", "runs", 'padding "same" with a stride'),
    Primitive(nir.SumPool2d, "runs", "runs; directly before a population it gets synapses of weight 1"),
    Primitive(nir.AvgPool2d, "runs", "runs as a sum, with its factor in the weights"),
    Primitive(nir.Flatten, "runs", "runs"),
    Primitive(
        nir.Delay,
        "runs: whole time steps, per neuron or the same for all",
        "runs: a delayed synapse",
        "delays between time steps, which a simulation in steps cannot represent: set `--dt`",
    ),
    Primitive(
        nir.Threshold,
        "runs: fires at the step at which its input exceeds the threshold",
        None,
        "fixed, except on the host after an analog input: without memory its decay would be 4096, and 12 bits hold 4095",
    ),
    Primitive(nir.I, "runs: outputs its membrane; `--if-dt` is its step", *MEMBRANE),
    Primitive(nir.LI, "runs: outputs its membrane", *MEMBRANE),
    Primitive(
        nir.IF,
        "runs; `--if-dt 1` reads v += r x, as most files mean it",
        "runs: dv = 0, potentials shifted to v_reset = 0",
    ),
    Primitive(
        nir.LIF,
        "runs; v_reset and v_leak as given",
        "runs; potentials shifted to v_reset = 0, v_leak becomes a bias",
        "fixed: non-positive r; dt/tau above 1 in both",
    ),
    Primitive(nir.CubaLI, "runs: outputs its membrane", *MEMBRANE),
    Primitive(
        nir.CubaLIF,
        "runs; the current is updated first, then the membrane",
        "runs: du and dv, potentials as for LIF; a bias into its current comes from neurons that fire at every step",
    ),
    Primitive(
        nir.NIRGraph,
        "runs: flattened, its nodes named outer.inner",
        "runs",
        "several inputs or outputs if the edges name no port",
    ),
    Primitive(GraphConv, "runs: one block of weights per edge of the skeleton", "runs"),
    Primitive(
        SpikingSelfAttention, "runs: two populations and their products", "runs", "after anything but one population"
    ),
)


def markdown() -> str:
    """Return the table of docs/deploy.md."""
    rows = ["| node | float | fixed point | refused by name |", "|---|---|---|---|"]
    for p in PRIMITIVES:
        rows.append(f"| {p.node.__name__} | {p.floats} | {p.fixed or 'refused'} | {p.refused or '–'} |")
    return "\n".join(rows)
