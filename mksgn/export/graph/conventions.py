"""What a NIR file leaves open about its neurons and frameworks do differently: reset, initial state, integration.

A node's metadata may hold `reset` (one of RESETS), `v_init` (one of V_INITS, or the potentials themselves) and
`integration` (one of INTEGRATIONS). `with_conventions` writes the metadata where a file says nothing; every execution,
the quantiser and the compiler read it. Other readers of NIR ignore it. Integration and spike delay are turned into
parameters and Delay nodes instead, which all readers know.
"""

import copy
from collections.abc import Mapping
from typing import Any

import networkx
import nir
import numpy as np

from mksgn.common.errors import BadInputError
from mksgn.export.choices import EULER, INTEGRATIONS, RESETS, SPIKE_DELAYS, V_INITS, ZERO
from mksgn.export.graph.flatten import flatten
from mksgn.export.graph.integration import integrated
from mksgn.export.graph.kinds import FIRING, GRADED, SPIKING

_KNOWN: dict[str, Mapping[Any, str]] = {
    "reset": RESETS,
    "v_init": V_INITS,
    "integration": INTEGRATIONS,
    "spike_delay": SPIKE_DELAYS,
}


def with_conventions(
    graph: nir.NIRGraph,
    reset: str = ZERO,
    v_init: str = ZERO,
    *,
    integration: str = EULER,
    spike_delay: int = 0,
    dt: float = 1e-4,
    if_dt: float | None = None,
) -> nir.NIRGraph:
    """Write the conventions that the user names into the neurons for which the file names none.

    Args:
        graph: Any graph; it is not changed.
        reset: One of RESETS.
        v_init: One of V_INITS.
        integration: One of INTEGRATIONS.
        spike_delay: One of SPIKE_DELAYS.
        dt: Time step in seconds, for files that name none.
        if_dt: Time step that IF and I integrate with in place of `dt`, in seconds.

    Returns:
        The flattened graph, or `graph` itself if all conventions are NIR's own.

    Raises:
        BadInputError: An unknown value; a spike delay within a loop of several neurons.
    """
    named = {"reset": reset, "v_init": v_init, "integration": integration, "spike_delay": spike_delay}
    for name, known in _KNOWN.items():
        if named[name] not in known:
            raise BadInputError(f"{name} {named[name]!r}: choose one of {', '.join(map(str, known))}")
    own = (node.metadata.get("integration", EULER) != EULER for node in flatten(graph).nodes.values())
    if tuple(named.values()) == (ZERO, ZERO, EULER, 0) and not any(own):
        return graph
    graph = flatten(graph)
    ours = "reset" in graph.metadata  # also says where its state starts (mksgn/export/lowering)
    integration = EULER if ours or "quantization" in graph.metadata else integration  # the integers were made for Euler
    nodes, dt = dict(graph.nodes), float(graph.metadata.get("dt", dt))
    for name, node in nodes.items():
        said = set(named) if ours else set(node.metadata)
        missing = {key: named[key] for key in ("reset", "v_init") if key not in said}
        if isinstance(node, SPIKING + GRADED) and missing:
            nodes[name] = copy.copy(node)
            nodes[name].metadata = {**node.metadata, **missing}
        nodes[name] = integrated(nodes[name], integration, dt, if_dt)
    edges = graph.edges
    if spike_delay and not ours and "spike_delay" not in graph.metadata:
        edges = _delayed(nodes, edges, spike_delay * dt)
    metadata = dict(graph.metadata) | ({"spike_delay": spike_delay} if spike_delay else {})
    return nir.NIRGraph(nodes, edges, metadata=metadata, type_check=False)


def _delayed(nodes: dict[str, nir.NIRNode], edges: list[tuple[str, str]], seconds: float) -> list[tuple[str, str]]:
    """Add a Delay after each firing neuron to `nodes`; return the edges rerouted through them.

    A neuron's spikes to itself get none: they arrive in the next step anyway, where the loop is cut.
    """
    looped = networkx.DiGraph(edges)
    loop_of = {name: loop for loop in networkx.strongly_connected_components(looped) for name in loop}
    delayed = []
    for source, target in edges:
        if not isinstance(nodes[source], FIRING):
            delayed.append((source, target))
            continue
        if target in loop_of[source] and source != target:
            others = sorted(n for n in loop_of[source] if isinstance(nodes[n], FIRING) and n != source)
            if others:
                raise BadInputError(
                    f"spike_delay: {source} and {others[0]} are in one loop, and NIR's loops already delay spikes "
                    "to the next step; write the delays into the file as Delay nodes"
                )
        if target in loop_of[source]:
            delayed.append((source, target))
            continue
        delay = f"{source}.spike_delay"
        if delay not in nodes:
            node = nodes[source]
            shape = np.shape(node.threshold if isinstance(node, nir.Threshold) else node.v_threshold)
            nodes[delay] = nir.Delay(np.full(shape, seconds, dtype=np.float32))
            delayed.append((source, delay))
        delayed.append((delay, target))
    return delayed


def reset_of(node: nir.NIRNode) -> str:
    """Return what a spike does to the membrane: one of RESETS."""
    reset = node.metadata.get("reset", ZERO)
    if reset not in RESETS:
        raise BadInputError(f"metadata of a {type(node).__name__}: reset {reset!r}; choose one of {', '.join(RESETS)}")
    return str(reset)


def initial_of(node: nir.NIRNode) -> np.ndarray:
    """Return where the membrane starts, in the file's units: float64 that broadcasts to the population's shape."""
    v_init = node.metadata.get("v_init", ZERO)
    if not isinstance(v_init, str):
        return np.asarray(v_init, dtype=np.float64)
    if v_init not in V_INITS:
        raise BadInputError(
            f"metadata of a {type(node).__name__}: v_init {v_init!r}; choose one of {', '.join(V_INITS)}"
        )
    potentials = {"v_reset": getattr(node, "v_reset", None), "leak": getattr(node, "v_leak", None)}
    potential = potentials.get(v_init)
    return np.zeros(1) if potential is None else np.asarray(potential, dtype=np.float64)


def subtracted(node: nir.NIRNode) -> np.ndarray | None:
    """Return what a spike subtracts from the membrane, in the file's units, float64; None if it resets to v_reset."""
    if not isinstance(node, SPIKING) or reset_of(node) == ZERO:
        return None
    return np.asarray(node.v_threshold, dtype=np.float64) - np.asarray(node.v_reset, dtype=np.float64)


def resting_at_zero(graph: nir.NIRGraph) -> nir.NIRGraph:
    """Shift the potentials of each firing neuron so that its v_reset is 0, to which Loihi resets a membrane.

    The spikes stay the same. If the neuron does not start at v_reset, its metadata says where it starts.
    """
    nodes = dict(graph.nodes)
    for name, node in nodes.items():
        if not isinstance(node, SPIKING) or not np.any(node.v_reset) or not np.isfinite(node.v_reset).all():
            continue
        shifted, by = copy.copy(node), np.asarray(node.v_reset, dtype=np.float64)
        shape = np.shape(node.v_threshold)
        initial = np.broadcast_to(initial_of(node) - by, shape)
        shifted.metadata = {**node.metadata, "v_init": initial.astype(np.float32) if initial.any() else ZERO}
        for potential in ("v_threshold", "v_leak", "v_reset"):
            if hasattr(node, potential):
                value = np.asarray(getattr(node, potential), dtype=np.float64) - by
                setattr(shifted, potential, np.broadcast_to(value, shape).astype(np.float32))
        nodes[name] = shifted
    if all(nodes[name] is node for name, node in graph.nodes.items()):
        return graph
    return nir.NIRGraph(nodes, graph.edges, metadata=dict(graph.metadata), type_check=False)
