"""The portable profile: stock primitives only, for other projects' simulators.

A GraphConv becomes one branch per target joint; the branches are summed in the neuron. With the
edges i_1 … i_d → j, the branch of joint j is

    x (C, T, V) → Linear (d, V) → Conv2d (C_out, C, 1, d) → Linear (V, 1)

The first Linear gathers the joints i_1 … i_d, the last one places the result at joint j. Each edge
keeps its own C_out x C block of weights, no synapse is added, and each joint gets the bias once.
Both Linear nodes hold only 0 and 1 and act on the last axis. Readers based on torch support that,
but nir's types cannot express it (NIR.md): read such a file with `type_check=False`. A strided
convolution is written as one node. A Scale by a single factor, which other readers lack, becomes a diagonal
Linear on the last axis. Attention becomes neurons (portable_attention.py).
"""

import nir
import numpy as np

from mksgn.export.graph.nodes import GraphConv, SpikingSelfAttention, f32
from mksgn.export.lowering.fold import per_edge
from mksgn.export.lowering.portable_attention import expand, product_units, scales

WIDEST_DIAGONAL = 1024  # rows of a matrix that stands for a Scale


def to_portable(graph: nir.NIRGraph) -> nir.NIRGraph:
    """Rewrite a network in stock primitives, with the same spikes under the same population names.

    Attention's populations are an exception: there is one of each kind per head (portable_attention.py).

    Raises:
        NotPortableError: Attention needs too many product units, or is not between convolutions.
    """
    graph.infer_types()
    units = product_units(graph)
    nodes: dict[str, nir.NIRNode] = {}
    edges = list(graph.edges)
    for name, node in graph.nodes.items():
        if isinstance(node, GraphConv):
            edges = _branches(name, node, nodes, edges)
        elif isinstance(node, nir.Scale) and np.ptp(node.scale) == 0 and _width(node) <= WIDEST_DIAGONAL:
            nodes[name] = nir.Linear(node.scale.flat[0] * np.eye(_width(node), dtype=np.float32))
        else:
            nodes[name] = node
    for name, node in list(nodes.items()):
        if isinstance(node, nir.Conv2d):
            edges = _one_convolution(name, node, nodes, edges)
    for name in [name for name, node in nodes.items() if isinstance(node, SpikingSelfAttention)]:
        edges = expand(name, nodes, edges, float(graph.metadata["dt"]))
    metadata = {**graph.metadata, "profile": "portable"} | ({"product_units": units} if units else {})
    if "quantization" in metadata:
        metadata["quantization"] = scales(graph, metadata["quantization"])
    return nir.NIRGraph(nodes, edges, metadata=metadata, type_check=False)


def _width(node: nir.Scale) -> int:
    """Return the length of the last axis of a node's input."""
    return int(node.input_type["input"][-1])


def _branches(
    name: str, node: GraphConv, nodes: dict[str, nir.NIRNode], edges: list[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Add the branches that replace a GraphConv to `nodes`; return the rewired edges."""
    adjacency, weight = per_edge(node.adjacency.astype(np.float64), node.weight.astype(np.float64))
    _, source, target = np.nonzero(adjacency)
    frames, joints = (int(n) for n in node.input_type["input"][1:])
    before = [a for a, b in edges if b == name]
    after = [b for a, b in edges if a == name]
    edges = [edge for edge in edges if name not in edge]
    for j in range(joints):
        into = np.flatnonzero(target == j)
        if len(into):
            kernel, joints_in = weight[into].transpose(1, 2, 0)[:, :, None], source[into]
        else:  # no edge leads to this joint: only the bias remains
            kernel, joints_in = np.zeros((*weight.shape[1:], 1, 1)), np.array([j])
        gather, conv, scatter = (f"{name}_{j}_{part}" for part in ("gather", "conv", "scatter"))
        nodes[gather] = nir.Linear(np.eye(joints, dtype=np.float32)[joints_in])
        nodes[conv] = nir.Conv2d(
            input_shape=(frames, len(joints_in)),
            weight=f32(kernel),
            stride=(1, 1),
            padding=(0, 0),
            dilation=(1, 1),
            groups=1,
            bias=node.bias,
        )
        nodes[scatter] = nir.Linear(np.eye(joints, dtype=np.float32)[:, j : j + 1])
        edges += [(a, gather) for a in before]
        edges += [(gather, conv), (conv, scatter)]
        edges += [(scatter, b) for b in after]
    return edges


def _one_convolution(
    name: str, node: nir.Conv2d, nodes: dict[str, nir.NIRNode], edges: list[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Write a convolution with numeric padding, and merge the decimating pool after it."""
    padding = tuple(k // 2 for k in node.weight.shape[2:]) if isinstance(node.padding, str) else node.padding
    stride, pool = node.stride, nodes.get(f"{name}_stride")
    if pool is not None:
        stride = pool.stride
        del nodes[f"{name}_stride"]
        edges = [(a, name if b == f"{name}_stride" else b) for a, b in edges if a != name]
        edges = [(name if a == f"{name}_stride" else a, b) for a, b in edges]
    nodes[name] = nir.Conv2d(
        node.input_shape,
        node.weight,
        tuple(int(s) for s in stride),
        tuple(int(p) for p in padding),
        node.dilation,
        node.groups,
        node.bias,
    )
    return edges
