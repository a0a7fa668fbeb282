"""How a framework integrates its neurons where that is not the forward Euler of NIR's reference: `--integration`.

Some frameworks decay exponentially, and some add the input in full, whatever r and w_in their exporters write. The
parameters of the nodes are rewritten so that forward Euler gives the same recursion; executions need not know of it.
"""

import copy
from collections.abc import Callable

import nir
import numpy as np

from mksgn.common.errors import BadInputError
from mksgn.export.choices import EULER, INTEGRATIONS
from mksgn.export.graph.kinds import CURRENT_BASED, GRADED, LEAKLESS, SPIKING

Array = np.ndarray


def _as_the_file_says(kept: Array, r: Array) -> Array:
    return (1 - kept) * r


def _in_full(kept: Array, r: Array) -> Array:
    return np.ones_like(r)


def _decayed(kept: Array, r: Array) -> Array:
    return kept * np.ones_like(r)


# The factor on the input, given the share of the state that a step keeps, and r or w_in
Gain = Callable[[Array, Array], Array]
_GAINS: dict[str, tuple[Gain, Gain]] = {  # of the membrane, and of the synaptic current
    "euler-unit": (_in_full, _in_full),
    "euler-unit-current": (_as_the_file_says, _in_full),
    "exponential": (_as_the_file_says, _as_the_file_says),
    "exponential-unit": (_in_full, _decayed),
}


def integrated(node: nir.NIRNode, integration: str, dt: float, if_dt: float | None) -> nir.NIRNode:
    """Return the neuron with parameters for which a forward Euler step equals one of `integration`.

    Args:
        node: Any neuron with a membrane; it is not changed. Its metadata may name another integration.
        integration: One of INTEGRATIONS.
        dt: Time step, seconds.
        if_dt: Time step that IF and I integrate with in place of `dt`, in seconds.

    Raises:
        BadInputError: The metadata names an unknown integration.
    """
    integration = node.metadata.get("integration", integration)
    if integration not in INTEGRATIONS:
        raise BadInputError(
            f"metadata of a {type(node).__name__}: integration {integration!r}; choose one of {', '.join(INTEGRATIONS)}"
        )
    if integration == EULER or not isinstance(node, SPIKING + GRADED):
        return node
    node, (membrane, current) = copy.copy(node), _GAINS[integration]
    exponential = integration.startswith("exponential")
    if isinstance(node, LEAKLESS):
        if membrane is _in_full:
            node.r = np.full(np.shape(node.r), 1 / (dt if if_dt is None else if_dt), dtype=np.float32)
    elif isinstance(node, CURRENT_BASED):
        node.tau_mem, node.r = _rewritten(node.tau_mem, node.r, dt, membrane, exponential=exponential)
        node.tau_syn, node.w_in = _rewritten(node.tau_syn, node.w_in, dt, current, exponential=exponential)
    else:
        node.tau, node.r = _rewritten(node.tau, node.r, dt, membrane, exponential=exponential)
    node.metadata = {**node.metadata, "integration": EULER}  # a file written with it is not rewritten again
    return node


def _rewritten(tau: Array, r: Array, dt: float, gain: Gain, *, exponential: bool) -> tuple[Array, Array]:
    """Return the tau and r for which an Euler step keeps and adds the intended amounts."""
    tau, r = np.asarray(tau, dtype=np.float64), np.asarray(r, dtype=np.float64)
    lost = -np.expm1(-dt / tau) if exponential else dt / tau
    return (dt / lost).astype(np.float32), (gain(1 - lost, r) / lost).astype(np.float32)
