"""What a NIR file leaves open about its neurons, and frameworks do differently: the reset and the initial state.

A node's metadata may say `reset`, one of RESETS, and `v_init`, one of V_INITS or the potentials themselves.
`with_conventions` writes the metadata where a file says nothing; every execution, the quantiser and the
compiler read it. Other readers of NIR ignore it.
"""

import copy

import nir
import numpy as np

from mksgn.common.errors import BadInputError
from mksgn.export.graph.flatten import flatten
from mksgn.export.graph.kinds import GRADED, SPIKING

ZERO, SUBTRACT, SUBTRACT_AT_ONCE = "zero", "subtract", "subtract-at-once"
RESETS = {  # what a spike does to the membrane, and the frameworks that mean it
    ZERO: "v = v_reset, as NIR says (norse, SpikingJelly, Lava)",
    SUBTRACT: "the next step's v, after its decay, is smaller by v_threshold - v_reset (snnTorch; spyx, which sends its "
    "spikes a step later)",
    SUBTRACT_AT_ONCE: "v is smaller by it before the next decay (SpikingJelly with v_reset=None; sinabs and "
    "rockpool, which may fire several times in a step)",
}
V_INITS = {  # where a membrane starts
    ZERO: "0 (snnTorch, spyx, sinabs, rockpool)",
    "v_reset": "v_reset (SpikingJelly)",
    "leak": "v_leak (norse)",
}


def with_conventions(graph: nir.NIRGraph, reset: str = ZERO, v_init: str = ZERO) -> nir.NIRGraph:
    """Write a reset and an initial state into the metadata of the neurons whose file names none.

    Args:
        graph: Any graph; it is not changed.
        reset: One of RESETS.
        v_init: One of V_INITS.

    Returns:
        The graph, flat, or `graph` itself where both are NIR's own.

    Raises:
        BadInputError: An unknown reset or initial state.
    """
    for name, value, known in (("reset", reset, RESETS), ("v_init", v_init, V_INITS)):
        if value not in known:
            raise BadInputError(f"{name} {value!r}: choose one of {', '.join(known)}")
    if (reset, v_init) == (ZERO, ZERO):
        return graph
    graph = flatten(graph)
    nodes = dict(graph.nodes)
    for name, node in nodes.items():
        # a file's own "reset" says where its state starts as well (mksgn/export/lowering)
        said = {"reset", "v_init"} if "reset" in graph.metadata else set(node.metadata)
        missing = {key: value for key, value in (("reset", reset), ("v_init", v_init)) if key not in said}
        if isinstance(node, SPIKING + GRADED) and missing:
            nodes[name] = copy.copy(node)
            nodes[name].metadata = {**node.metadata, **missing}
    return nir.NIRGraph(nodes, graph.edges, metadata=dict(graph.metadata), type_check=False)


def reset_of(node: nir.NIRNode) -> str:
    """What a spike does to the membrane, one of RESETS."""
    reset = node.metadata.get("reset", ZERO)
    if reset not in RESETS:
        raise BadInputError(f"metadata of a {type(node).__name__}: reset {reset!r}; choose one of {', '.join(RESETS)}")
    return str(reset)


def initial_of(node: nir.NIRNode) -> np.ndarray:
    """Where the membrane starts, in the file's units; float64, broadcasts against the population's shape."""
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
    """What a spike takes from the membrane, in the file's units, float64; None for a reset to v_reset."""
    if not isinstance(node, SPIKING) or reset_of(node) == ZERO:
        return None
    return np.asarray(node.v_threshold, dtype=np.float64) - np.asarray(node.v_reset, dtype=np.float64)


def resting_at_zero(graph: nir.NIRGraph) -> nir.NIRGraph:
    """Shift the potentials of each firing neuron such that its v_reset is 0, to which Loihi resets a membrane.

    The spikes stay the same. Where the neuron did not start at v_reset, the metadata says where it does.
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
