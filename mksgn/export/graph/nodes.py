"""The two primitives that NIR lacks, graph convolution and spiking self-attention; importing the module registers them.

They are dataclasses like NIR's own. Their types follow from that of their input, so that `NIRGraph.infer_types`
and the type checks of `nir.read` cover them. A reader that does not know them fails, as it must: it
could not run the network.
"""

from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
from nir.ir.node import NIRNode


def f32(x: Any) -> np.ndarray:
    """Convert to float32, contiguous, as all arrays of a file are."""
    return np.ascontiguousarray(x, dtype=np.float32)


def ints(x: Any, axes: int) -> tuple[int, ...]:
    """Broadcast a kernel size, stride, padding or dilation to one int for each axis."""
    return tuple(int(i) for i in np.broadcast_to(x, axes))


@dataclass(eq=False)
class GraphConv(NIRNode):
    r"""Graph convolution over K adjacency subsets, applied to each frame separately.

    .. math::
        y[o,t,j] = bias[o] + \sum_{k,c,i} weight[k,o,c] \; adjacency[k,i,j] \; x[c,t,i]

    i is the source joint, j the target; columns (fixed j) of a normalised subset sum to 1. Input
    (C_in, T, V), output (C_out, T, V). In quantised files there is one k per edge, and adjacency holds
    only 0 and 1, so that each synapse has its own integer weight, as a chip stores it.
    """

    adjacency: np.ndarray  # (K, V, V) [subset, source, target]
    weight: np.ndarray  # (K, C_out, C_in)
    bias: np.ndarray  # (C_out,)

    def __post_init__(self) -> None:
        a, w, b = (np.asarray(x) for x in (self.adjacency, self.weight, self.bias))
        if a.ndim != 3 or a.shape[1] != a.shape[2]:
            raise ValueError(f"GraphConv: adjacency has shape {a.shape}, expected (K, V, V)")
        if w.ndim != 3 or w.shape[0] != a.shape[0]:
            raise ValueError(f"GraphConv: weight has shape {w.shape}, expected (K, C_out, C_in) with K = {a.shape[0]}")
        if b.shape != (w.shape[1],):
            raise ValueError(f"GraphConv: bias has shape {b.shape}, expected (C_out,) = ({w.shape[1]},)")
        self.adjacency, self.weight, self.bias = a, w, b
        self.input_type: dict[str, Any] = {"input": None}

    @property
    def output_type(self) -> dict[str, Any]:
        shape = self.input_type["input"]
        if shape is None:
            return {"output": None}
        if len(shape) != 3 or shape[0] != self.weight.shape[2] or shape[2] != self.adjacency.shape[1]:
            raise ValueError(
                f"GraphConv: input has shape {tuple(int(n) for n in shape)}, expected (C_in, T, V) = "
                f"({self.weight.shape[2]}, T, {self.adjacency.shape[1]})"
            )
        return {"output": np.array([self.weight.shape[1], shape[1], shape[2]])}


@dataclass(eq=False)
class SpikingSelfAttention(NIRNode):
    r"""Self-attention of spikes over the joints of each frame, with a binary map; two LIF populations, m and z.

    Input: the stacked q|k|v spikes (3C, T, V). Output: the spikes z (C, T, V). channel = head · d + i with
    d = C / heads.

    .. math::
        a_m[h,t,i,j] = gain_m[h] \sum_c q[h d + c, t, i] \; k[h d + c, t, j]          [query i, key j]
    .. math::
        a_z[h d + c, t, i] = gain_z[h] \sum_j m[h,t,i,j] \; v[h d + c, t, j]

    Both populations follow NIR's LIF with r = 1, v_leak = v_reset = 0: :math:`\tau \dot v = -v + a`;
    spike where :math:`v > threshold[h]`, then :math:`v = 0`. z gets the spikes m of the same time step.
    """

    heads: int
    gain_m: np.ndarray  # (heads,)
    gain_z: np.ndarray  # (heads,)
    threshold_m: np.ndarray  # (heads,)
    threshold_z: np.ndarray  # (heads,)
    tau: Any  # time constant of both populations, seconds; a float32 scalar

    def __post_init__(self) -> None:
        self.heads = int(self.heads)
        for name in ("gain_m", "gain_z", "threshold_m", "threshold_z"):
            value = np.asarray(getattr(self, name))
            if value.shape != (self.heads,):
                raise ValueError(
                    f"SpikingSelfAttention: {name} has shape {value.shape}, expected (heads,) = ({self.heads},)"
                )
            setattr(self, name, value)
        if np.shape(self.tau) != ():
            raise ValueError(f"SpikingSelfAttention: tau has shape {np.shape(self.tau)}, expected a scalar")
        # a NumPy scalar: nir.write compresses arrays, which HDF5 refuses for shape ()
        self.tau = np.asarray(self.tau)[()]
        self.input_type: dict[str, Any] = {"input": None}

    @property
    def output_type(self) -> dict[str, Any]:
        shape = self.input_type["input"]
        if shape is None:
            return {"output": None}
        if len(shape) != 3 or shape[0] % (3 * self.heads):
            raise ValueError(
                f"SpikingSelfAttention: input has shape {tuple(int(n) for n in shape)}, expected (3C, T, V) with C a "
                f"multiple of heads = {self.heads}"
            )
        return {"output": np.array([shape[0] // 3, shape[1], shape[2]])}


def register() -> None:
    """Register both with nir, which has no registry: nir.read looks a type's name up in nir.ir (NIR.md)."""
    for cls in (GraphConv, SpikingSelfAttention):
        setattr(nir.ir, cls.__name__, cls)
        known = vars(nir.ir)["__all_ir"]
        if cls.__name__ not in known:
            known.append(cls.__name__)


register()
