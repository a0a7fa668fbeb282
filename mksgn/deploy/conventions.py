"""What a run assumes if its file does not say, and why: time steps, reset, initial state, integration, spike delay."""

from dataclasses import replace

import nir
import numpy as np

from mksgn.deploy.compiler import compile_graph
from mksgn.deploy.execute import run
from mksgn.deploy.options import Reading
from mksgn.export.choices import EULER, INTEGRATIONS, RESETS, SPIKE_DELAYS, V_INITS, ZERO
from mksgn.export.graph.arrays import Arrays, arrays_by_input
from mksgn.export.graph.conventions import reset_of
from mksgn.export.graph.flatten import flatten
from mksgn.export.graph.kinds import GRADED, LEAKLESS, SPIKING

_SPIKE_DELAYS = {str(steps): meaning for steps, meaning in SPIKE_DELAYS.items()}
SAMPLES = 16  # samples whose firing rates are compared
ROUNDED = 1e-5  # relative error that float32 may have left in r


def conventions(graph: nir.NIRGraph, reading: Reading, samples: Arrays | None = None) -> list[str]:
    """Say which time step, step of IF, reset, initial state, integration and spike delay are assumed, and why.

    Args:
        graph: the graph as it was read.
        reading: the options that `compile_graph` gets.
        samples: (samples, steps, *input shape), or a dict of such arrays, for the firing rates in a warning.

    Returns:
        Lines to print.
    """
    graph = flatten(graph)
    neurons = [node for node in graph.nodes.values() if isinstance(node, SPIKING + GRADED)]
    firing = [node for node in neurons if isinstance(node, SPIKING)]
    own = graph.metadata.get("dt")
    lines = [
        f"time step {reading.dt:g} s, by --dt or its default; the file gives none"
        if own is None
        else f"time step {own:g} s, from the file"
    ]
    if "quantization" not in graph.metadata:
        lines.append("no checksum in the file, which mksgn did not quantise")
    if "reset" not in graph.metadata:  # our own files say it
        named = {reset_of(node) for node in firing if "reset" in node.metadata}
        lines += _said("reset", firing, reading.reset, RESETS, named)
        apart = [np.any(getattr(n, p, 0)) for n in neurons for p in ("v_reset", "v_leak")]
        if any(apart) or reading.v_init != ZERO:  # otherwise all initial states are the same
            named = {n.metadata["v_init"] for n in neurons if isinstance(n.metadata.get("v_init"), str)}
            lines += _said("v-init", neurons, reading.v_init, V_INITS, named)
        leaky = [node for node in neurons if not isinstance(node, LEAKLESS) or reading.integration != EULER]
        named = {n.metadata["integration"] for n in neurons if "integration" in n.metadata}
        if "quantization" not in graph.metadata:
            lines += _said("integration", leaky, reading.integration, INTEGRATIONS, named)
        if reading.spike_delay or "spike_delay" in graph.metadata:
            own_delay = graph.metadata.get("spike_delay")
            named = set() if own_delay is None else {str(own_delay)}
            lines += _said("spike-delay", firing, str(reading.spike_delay), _SPIKE_DELAYS, named)
    return lines + _step_of_if(graph, reading, samples)


def _said(option: str, nodes: list[nir.NIRNode], value: str, known: dict[str, str], named: set[str]) -> list[str]:
    """Return a line with an option's value: the file's own where it names any, otherwise the one that is assumed."""
    if not nodes:
        return []
    if named:
        return [f"{option} {', '.join(sorted(named))}, the file's"]
    return [f"{option} {value}: {known[value]}; the file does not say (--{option})"]


def _step_of_if(graph: nir.NIRGraph, reading: Reading, samples: Arrays | None) -> list[str]:
    """Say which step IF and I get; warn, with the firing rates of both, where the file could mean v += r x dt or v += r x."""
    leakless = {name: node for name, node in graph.nodes.items() if isinstance(node, LEAKLESS)}
    step = float(graph.metadata.get("dt", reading.dt))
    unclear = [name for name, node in leakless.items() if not _integrates_its_input(node, step)]
    if not leakless:
        return []
    if reading.if_dt is not None:
        return [f"step of IF and I {reading.if_dt:g} s (--if-dt)"]
    if not unclear:
        return ["step of IF and I: r is 1/dt, so that v += x"]
    rates = ["", ""]
    firing = [name for name in unclear if isinstance(leakless[name], SPIKING)]
    if samples is not None and firing:
        rates = [_rates(graph, samples, firing, replace(reading, if_dt=each)) for each in (step, 1.0)]
    return [
        f"warning: {', '.join(unclear)}: taken as v += r x dt{rates[0]}; r is not 1/dt, and most files then mean "
        f"v += r x{rates[1]}, which is --if-dt 1"
    ]


def _integrates_its_input(node: nir.NIRNode, dt: float) -> bool:
    """Return whether r = 1/dt, so that v += x."""
    return bool(np.allclose(np.asarray(node.r, dtype=np.float64) * dt, 1, rtol=ROUNDED, atol=0))


def _rates(graph: nir.NIRGraph, samples: Arrays, names: list[str], reading: Reading) -> str:
    """Return the firing rate of the populations in float, as text; empty for samples without steps."""
    program = compile_graph(graph, precision="float", **reading.options)
    inputs = arrays_by_input(samples, [p.name for p in program.inputs])
    if any(x.ndim != len(program[name].shape) + 2 for name, x in inputs.items()):
        return ""
    execution = run(program, {name: x[:SAMPLES] for name, x in inputs.items()}, record=False)
    counters = [execution.counters[name] for name in names]
    return f" (firing rate {sum(c.spikes for c in counters) / sum(c.updates for c in counters):.2%})"
