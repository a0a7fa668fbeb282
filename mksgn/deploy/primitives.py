"""What deploy does with each node: the table in docs/deploy.md is written from this, and a test runs each line."""

from __future__ import annotations

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


# in fixed point, and what is refused, of nodes that output their membrane
MEMBRANE = "shown by an Output", "fixed: as a source of synapses, which take spikes"

PRIMITIVES = (
    Primitive(
        nir.Input,
        "spikes, or currents where it is `analog`",
        "spikes; what is analog stays on the host up to its first spikes",
    ),
    Primitive(nir.Output, "a population's spikes or membrane, or a sum of synapses", "the same, dequantised"),
    Primitive(
        nir.Affine,
        "runs; its bias becomes the population's",
        "runs",
        "fixed: its bias into a CubaLIF (Loihi's enters the membrane), behind a Delay or a loop (Loihi's is there "
        "from the first step), before a pool, or on the last axis of several",
    ),
    Primitive(
        nir.Linear,
        "runs; on the last axis, or a matrix for each index of the axes before it",
        "runs",
        "fixed: in series with another weighted node, but for what merges (Linear with Linear, Scale per channel)",
    ),
    Primitive(
        nir.Scale,
        "runs",
        "runs; next to another weighted node it is merged into it, where it has one value per channel",
    ),
    Primitive(nir.Conv1d, "runs: stride, padding, dilation, groups", "runs"),
    Primitive(nir.Conv2d, "runs: the same, and kernels that are not square", "runs", 'padding "same" with a stride'),
    Primitive(nir.SumPool2d, "runs", "runs; straight into a population it gets synapses of weight 1"),
    Primitive(nir.AvgPool2d, "runs", "runs as a sum, its factor in the weights"),
    Primitive(nir.Flatten, "runs", "runs"),
    Primitive(
        nir.Delay,
        "runs: whole time steps, one for each neuron or the same for all",
        "runs: a delayed synapse",
        "delays between time steps, which no simulation in steps has: set `--dt`",
    ),
    Primitive(
        nir.Threshold,
        "runs: fires at the step where its input exceeds it",
        None,
        "fixed, but for the host, behind an analog input: without memory its decay would be 4096, and 12 bits "
        "hold 4095",
    ),
    Primitive(nir.I, "runs: its membrane is shown; `--if-dt` is its step", *MEMBRANE),
    Primitive(nir.LI, "runs: its membrane is shown", *MEMBRANE),
    Primitive(
        nir.IF,
        "runs; `--if-dt 1` reads v += r x, as most files mean it",
        "runs: dv = 0",
        "fixed: v_reset other than 0, where Loihi's membrane starts again",
    ),
    Primitive(
        nir.LIF,
        "runs; v_reset and v_leak as they are",
        "runs; v_leak becomes a bias",
        "fixed: v_reset other than 0, r not positive; dt/tau above 1 in both",
    ),
    Primitive(nir.CubaLI, "runs: its membrane is shown", *MEMBRANE),
    Primitive(
        nir.CubaLIF,
        "runs; the current first, then the membrane",
        "runs: du and dv",
        "fixed: v_reset other than 0; a bias into its current",
    ),
    Primitive(
        nir.NIRGraph,
        "runs: dissolved, its nodes named outer.inner",
        "runs",
        "several inputs or outputs whose edges name no port",
    ),
    Primitive(GraphConv, "runs: one block of weights per edge of the skeleton", "runs"),
    Primitive(
        SpikingSelfAttention,
        "runs: two populations and their products",
        "runs",
        "behind anything but one population",
    ),
)


def markdown() -> str:
    """The table of docs/deploy.md."""
    rows = ["| node | float | fixed point | refused by name |", "|---|---|---|---|"]
    for p in PRIMITIVES:
        rows.append(f"| {p.node.__name__} | {p.floats} | {p.fixed or 'refused'} | {p.refused or '–'} |")
    return "\n".join(rows)
