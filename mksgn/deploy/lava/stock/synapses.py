"""A projection of stock Lava Processes: Conv, Sparse, DelaySparse, and ProdNeuron for attention's products.

Stock synapses send what they summed in the previous time step, so that each costs one; a product is
two of them in series. Their fixed-point weights have pitfalls (LAVA.md): Sparse clips at 8 bits
and, where signs are mixed, keeps only even integers. Larger entries, where several synapses of a
projection connect the same two neurons, are therefore spread over several Sparse.
"""

from collections.abc import Iterator

import numpy as np
import torch
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.proc.conv.process import Conv
from lava.proc.prodneuron.process import ProdNeuron
from lava.proc.sparse.process import DelaySparse, Sparse
from scipy.sparse import csr_matrix, diags, identity, vstack

from mksgn.deploy.errors import DeployError
from mksgn.deploy.lava.process_models import process_name
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.program import AnyProjection, Product, Program, Projection, Shape
from mksgn.export.loihi import WEIGHT_LIMIT

LONGEST_DELAY = 63  # of a DelaySparse: 6 bits
CONV_LIMIT = 127  # stock Conv keeps kernel size, stride, padding, dilation and groups in 8 bits
CHUNK = 1 << 22  # values of a projection's matrix computed at a time

Ports = tuple[OutPort, ...]


def cost(projection: AnyProjection) -> int:
    """Return the time steps that a projection takes in stock Processes."""
    return 2 if isinstance(projection, Product) else 1


class Synapses:
    """Makes a program's projections.

    `ports` holds the OutPorts of each population: each sends the spikes of some of its neurons and
    is silent for the others. Several OutPorts connected to one InPort add up.
    """

    def __init__(self, program: Program, ports: dict[str, Ports]):
        self.program, self.ports = program, ports
        self.dtype = np.int32 if program.precision == "fixed" else np.float64
        self._late: dict[tuple[str, int], Ports] = {}

    def connect(self, projection: AnyProjection, delays: list[int], target: InPort, members: np.ndarray | None) -> None:
        """Connect the sources, each after its delay, to `target`; with `members` (bool) only to these neurons."""
        for source in projection.sources:
            if not self.program.sends_spikes(source):
                raise DeployError(
                    f"projection {projection.name}: {source} sends currents and stock synapses take spikes; "
                    "run the fused network"
                )
        sources = [self._held(source, delay) for source, delay in zip(projection.sources, delays, strict=True)]
        if isinstance(projection, Product):
            self._product(projection, sources, target, members)
            return
        shape = self.program[projection.source].shape
        conv = None if members is not None else stock_conv(projection, shape, self.dtype)
        if conv is None:
            self._sparse(projection.name, self._matrix(projection, shape, target.size), sources[0], target, members)
            return
        for port in sources[0]:
            port.reshape(shape).transpose((1, 2, 0)).connect(conv.s_in)
        conv.a_out.transpose((2, 0, 1)).reshape(target.shape).connect(target)

    def _held(self, source: str, delay: int) -> Ports:
        """Return the source's spikes, `delay` steps late: each passes a synapse of its own, of weight 1."""
        if delay == 0:
            return self.ports[source]
        if (source, delay) not in self._late:
            hold = min(delay, LONGEST_DELAY + 1)
            ones = csr_matrix(identity(self.program[source].size, dtype=self.dtype))
            name = f"{process_name(source)}_{delay}_late"
            if hold == 1:
                process = Sparse(weights=ones, name=name)
            else:
                held = csr_matrix(identity(ones.shape[0], dtype=int) * (hold - 1))
                process = DelaySparse(weights=ones, delays=held, name=name)
            for port in self._held(source, delay - hold):
                port.flatten().connect(process.s_in)
            self._late[source, delay] = (process.a_out,)
        return self._late[source, delay]

    @torch.no_grad()
    def _matrix(self, projection: Projection, shape: Shape, targets: int) -> csr_matrix:
        """Return weights (targets, sources), from one spike per source neuron; made in parts, as most are 0."""
        size = int(np.prod(shape))
        rows = max(1, CHUNK // max(size, targets))
        parts = []
        for first in range(0, size, rows):
            x = torch.zeros((min(rows, size - first), size))
            x[torch.arange(len(x)), first + torch.arange(len(x))] = 1
            parts.append(csr_matrix(projection.current((x.view(-1, *shape),)).reshape(len(x), -1).numpy()))
        return vstack(parts).T.tocsr().astype(self.dtype)

    def _sparse(
        self, name: str, weights: csr_matrix, sources: Ports, target: InPort, members: np.ndarray | None
    ) -> None:
        if members is not None:
            weights = csr_matrix(diags(members.ravel(), dtype=self.dtype) @ weights).astype(self.dtype)
            weights.eliminate_zeros()
        for part in self._eight_bits(name, weights):
            process = Sparse(weights=part, name=process_name(name))
            for port in sources:
                port.flatten().connect(process.s_in)
            process.a_out.reshape(target.shape).connect(target)

    def _eight_bits(self, name: str, weights: csr_matrix) -> Iterator[csr_matrix]:
        """Split the weights into matrices that fixed-point Sparse keeps unchanged and that sum up to them."""
        if self.program.precision != "fixed":
            yield weights
            return
        data = weights.data
        if data.min(initial=0) < 0 < data.max(initial=0) and np.any(data % 2):
            raise DeployError(
                f"projection {name}: odd weights of both signs, of which stock Sparse keeps the even part; "
                "export it again with --quantize 8"
            )
        while True:
            part = weights.copy()
            part.data = np.clip(part.data, -WEIGHT_LIMIT, WEIGHT_LIMIT)
            weights = (weights - part).astype(self.dtype)
            weights.eliminate_zeros()
            yield part
            if not weights.nnz:
                return

    def _product(self, product: Product, sources: list[Ports], target: InPort, members: np.ndarray | None) -> None:
        """Make a ProdNeuron per (channel, frame, query, key), with synapses of one weight to the target."""
        if self.program.precision != "fixed":
            raise DeployError(
                f"projection {product.name}: stock ProdNeuron has a fixed-point model only; "
                "compile with precision fixed"
            )
        first, second, sums = product_indices(product, [self.program[source].shape for source in product.sources])
        units = len(sums)
        neurons = ProdNeuron(shape=(units,), vth=0)  # it fires above vth: with vth = 1, a product of 1 would be lost
        for index, ports, port in ((first, sources[0], neurons.a_in1), (second, sources[-1], neurons.a_in2)):
            size = ports[0].size
            gather = csr_matrix((np.ones(units, self.dtype), (np.arange(units), index)), (units, size))
            self._sparse(product.name, gather, ports, port, None)
        weights = csr_matrix(
            (np.full(units, product.weight, self.dtype), (sums, np.arange(units))), (target.size, units)
        )
        self._sparse(product.name, weights, (neurons.s_out,), target, members)


def stock_conv(projection: Projection, shape: Shape, dtype: type) -> Conv | None:
    """Make the stock Process of a 2-d convolution, with a decimation after it as its stride; None for anything else."""
    conv, *rest = projection.operators or (None,)
    if not isinstance(conv, ops.Conv) or conv.weight.ndim != 4 or any(conv.extra_end_padding) or len(rest) > 1:
        return None
    stride = conv.stride
    for pool in rest:
        if not isinstance(pool, ops.SumPool) or pool.kernel != (1, 1) or pool.padding != (0, 0):
            return None
        stride = (stride[0] * pool.stride[0], stride[1] * pool.stride[1])
    if max(*conv.weight.shape[2:], *stride, *conv.padding, *conv.dilation, conv.groups) > CONV_LIMIT:
        return None
    flipped = conv.weight[:, :, ::-1, ::-1]  # stock Conv convolves in the mathematical sense, and has channels last
    return Conv(
        weight=np.ascontiguousarray(flipped.transpose(0, 2, 3, 1)).astype(dtype),
        input_shape=(*shape[1:], shape[0]),
        padding=conv.padding,
        stride=stride,
        dilation=conv.dilation,
        groups=conv.groups,
        name=process_name(projection.name),
    )


def product_indices(product: Product, shapes: list[Shape]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each unit the neuron of the first source, that of the last, and the target neuron."""
    stacked, frames, joints = shapes[-1]
    channels = stacked // 3
    width = channels // product.heads
    c, t, i, j = (x.ravel() for x in np.indices((channels, frames, joints, joints)))  # i the query, j the key
    maps = np.ravel_multi_index((c // width, t, i, j), (product.heads, frames, joints, joints))

    def qkv(channel: np.ndarray, joint: np.ndarray) -> np.ndarray:
        return np.ravel_multi_index((channel, t, joint), shapes[-1])

    if product.part == "m":
        return qkv(c, i), qkv(channels + c, j), maps
    return maps, qkv(2 * channels + c, j), np.ravel_multi_index((c, t, i), (channels, frames, joints))
