"""lava-dl's HDF5 network files, which SLAYER's `export_hdf5` writes and netx reads.

The graph describes what netx runs in Lava's fixed point, with the file's integers unchanged in
`weight`. In Lava's units:

    u = u (1 - iDecay/4096) + W s
    v = v (1 - vDecay/4096) + u + bias;   spike where v > vThMant, then v = 0

In NIR: tau_syn = dt 4096/iDecay, w_in = 4096/iDecay, tau_mem = dt 4096/vDecay, r = 4096/vDecay.
Rounding 4096 dt/tau, and the weights' scale w_in dt/tau_syn r dt/tau_mem = 1, recover every
integer. iDecay = 4096 keeps no current: that is a LIF or, with vDecay = 0, an IF of r = 1/dt.
Everything else is a CubaLIF. The bias enters the membrane, never the current. Where the bias of a
linear node would pass through a current or a Delay first, or is not one per channel, it becomes
v_leak = bias 4096/vDecay with v_reset = 0. All state starts at 0.

Shapes are (C, H, W) and are flattened in that order, as in SLAYER; netx's own order is (W, H, C). A
synapse takes one time step in Lava; the graph does not contain that latency, except for the one
step of a recurrent edge. A delay per output delays the neuron's input, as in netx, and not its
spikes, as in SLAYER: with a bias, the two differ until the delay has passed. An input layer with
neurons takes analog values x; its current is weight x + bias. Loihi's 24 bits of u, which wrap, and
of v, which are clipped, are not in NIR: the graph equals netx's network as long as neither happens.

What netx would silently drop or change is refused. As measured in lava-dl 0.6.0, netx runs
- a single weight -1 as 0, weights {-2, 0} as {-1, 0}, and {-255, 0} as 0,
- a layer of positive weights as 0 if one exceeds 255,
- 128 convolution groups as no synapses,
- the weights (30, -4, 6) of a dense_rec with delays eight times as large.

It does not round odd weights of mixed sign: -256 … 254 arrive as they are.
"""

import json
import warnings
from pathlib import Path

import nir
import numpy as np

from mksgn.common.errors import BadInputError, MksgnWarning
from mksgn.export.lava_dl.builder import Builder
from mksgn.export.lava_dl.hdf5 import load
from mksgn.train import checkpoint


def read(path: Path, *, dt: float = 1e-4, input_shape: tuple[int, ...] | None = None) -> nir.NIRGraph:
    """Read a file's network as a graph of stock NIR primitives.

    The neurons of layer i are node `layer<i>`; the nodes before them add `_dense`, `_conv`,
    `_recurrent`, `_flatten`, `_delay` or `_scale` to that name. The graph is type-checked unless
    nir cannot type it (grouped convolutions, and most kernels that are not square).

    Args:
        path: The file.
        dt: Time step in seconds.
        input_shape: (C, H, W) or (N,), for a file without an input layer; only needed before a
            convolution with a stride.

    Raises:
        UnsupportedLayerError: NIR cannot express a layer, or netx would lose part of it.
        BadInputError: The file is missing, damaged or not a lava-dl network.
    """
    if not (np.isfinite(dt) and dt > 0):
        raise BadInputError(f"dt is {dt}, expected a time step in seconds above 0, such as 1e-4")
    builder = Builder(dt, input_shape or ())
    for layer in load(path):
        builder.add(layer)
    if not builder.populations:
        raise BadInputError(f"{path}: has no layer with neurons; export the whole network")
    if builder.unused:
        warnings.warn(
            f"{path}: netx drops {', '.join(builder.unused)}, and so does the graph; remove what is not intended",
            MksgnWarning,
            stacklevel=2,
        )
    versions = checkpoint.tool_versions("mksgn", "nir", "numpy", "h5py")
    return builder.graph(parent=checkpoint.sha256(path), versions=json.dumps(versions))
