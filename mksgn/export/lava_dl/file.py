"""lava-dl's HDF5 network file → NIR graph: what `slayer.block.*.export_hdf5` writes and `lava.lib.dl.netx` reads, without either.

The graph says what netx runs in Lava's fixed point, with the file's integers as they are in `weight`. In Lava's units:

    u = u (1 - iDecay/4096) + W s;   v = v (1 - vDecay/4096) + u + bias;   spike where v > vThMant, then v = 0

tau_syn = dt 4096/iDecay, w_in = 4096/iDecay, tau_mem = dt 4096/vDecay, r = 4096/vDecay, so that rounding 4096 dt/tau and the weights'
scale w_in dt/tau_syn r dt/tau_mem = 1 recovers every integer. iDecay = 4096 keeps no current: that is a LIF (with vDecay = 0 an IF of
r = 1/dt), everything else a CubaLIF. The bias enters the membrane, never the current: where a linear node's bias would pass through a
current or a Delay first, or is not one per channel, it is v_leak = bias 4096/vDecay, with v_reset = 0. All state starts at 0, v too.

Shapes are (C, H, W) and flatten in that order, as in SLAYER; netx's own order (W, H, C) never shows. A synapse takes one step in
Lava; that latency is not in the graph, but for the one step of a recurrent edge. A delay by output holds back the neuron's input, as
in netx, not its spikes, as in SLAYER: with a bias they differ until the delay is over. An input layer with neurons takes analog
values x: its current is weight x + bias. Loihi's 24 bits of u (they wrap) and of v (clipped) are not in NIR: the graph is netx's
network while neither happens.

What netx would drop or change in silence is refused. Measured in lava-dl 0.6.0: it runs the lone weight -1 as 0, weights {-2, 0} as
{-1, 0}, {-255, 0} as 0, all positive weights as 0 once one exceeds 255, 128 convolution groups as no synapse, and the weights
(30, -4, 6) of a dense_rec with delays eight times as large. It does not round odd weights of mixed sign: -256 … 254 arrive as they are.
"""

from __future__ import annotations

import json
from pathlib import Path

import nir
import numpy as np

from mksgn.common.errors import BadInputError
from mksgn.export.lava_dl.builder import Builder
from mksgn.export.lava_dl.hdf5 import load
from mksgn.train import checkpoint


def read(path: Path, *, dt: float = 1e-4, input_shape: tuple[int, ...] | None = None) -> nir.NIRGraph:
    """The file's network as a graph of stock NIR primitives, one step being `dt` seconds.

    `input_shape`, (C, H, W) or (N,), is for files without an input layer; only a convolution with a stride needs it.

    The neurons of layer i are node `layer<i>`, the nodes before them that name with `_dense`, `_conv`, `_recurrent`, `_flatten`,
    `_delay` or `_scale`. The graph is type-checked unless nir cannot type it (grouped convolutions, most kernels that are not square).
    Raises UnsupportedLayerError for what NIR cannot say or netx would lose, BadInputError for a missing, damaged or foreign file.
    """
    if not (np.isfinite(dt) and dt > 0):
        raise BadInputError(f"dt is {dt}, expected a time step in seconds above 0, as 1e-4")
    builder = Builder(dt, input_shape or ())
    for layer in load(path):
        builder.add(layer)
    if not builder.populations:
        raise BadInputError(f"{path}: holds no layer with neurons; export the whole network")
    versions = checkpoint.tool_versions("mksgn", "nir", "numpy", "h5py")
    return builder.graph(parent=checkpoint.sha256(path), versions=json.dumps(versions))
