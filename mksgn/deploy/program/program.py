"""The compiled network: populations and projections, made by the passes of mksgn/deploy/passes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor

from mksgn.deploy.choices import PrecisionName
from mksgn.deploy.errors import DeployError
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.neurons import FloatNeuron, Neuron

Shape = tuple[int, ...]
Location = Literal["host", "chip"]
SynapseKind = Literal["dense", "sparse", "convolution"]


@dataclass(frozen=True, eq=False)
class Population:
    """Neurons that share an equation.

    Attributes:
        kind: `input`; `spiking`; `graded`, which never fires and whose membrane potential is an
            output; or `readout`, a sum without memory or threshold.
        bias: of a read-out, in units of its weights.
        unit: value of one weight unit in the file's units; of a graded population, of one unit of
            its membrane potential.
        depth: time step, from 0, at which the population handles the first step of a sample, if a
            product is computed within a step, as in Lava.
        chip_depth: the same on the chip, whose product units are neurons that take a step.
        group: execution group, which is computed as one: the population by itself, or all
            populations of a recurrent loop.
        late_biases: (first step, currents) that come through delays, so that they begin at a later
            step of the sample.
    """

    name: str
    shape: Shape
    kind: Literal["input", "spiking", "graded", "readout"]
    location: Location = "chip"
    neuron: Neuron | None = None
    bias: np.ndarray | None = None
    unit: float | np.ndarray = 1.0
    depth: int = 0
    chip_depth: int = 0
    group: str = ""
    late_biases: tuple[tuple[int, np.ndarray], ...] = ()

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", self.name)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def fires(self) -> bool:
        return self.kind == "spiking"


@dataclass(frozen=True, eq=False)
class Projection:
    """Synapses from one population to another.

    Attributes:
        logical_delay: what the network asks for: the steps of Delay nodes, and one for an edge that
            closes a loop.
        compensation_delay: what the balance pass adds, so that branches of different length meet in
            the same step of the sample.
    """

    name: str
    source: str
    target: str
    operators: ops.Operators
    logical_delay: int = 0
    compensation_delay: int = 0

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    @property
    def compensation_delays(self) -> tuple[int, ...]:
        return (self.compensation_delay,)

    @property
    def kind(self) -> str:
        weighted = (op.kind for op in self.operators if hasattr(op, "weight"))
        return next(weighted, self.operators[0].kind if self.operators else "identity")

    @property
    def synapse_kind(self) -> SynapseKind:
        """How a chip with several kinds of synapse would hold the projection.

        A dense layer connects all pairs, and operators in a chain with it are multiplied into one
        matrix; a graph convolution, whose pairs follow from the skeleton, and one-to-one connections
        are lists of pairs; a convolution or pooling shares its weights.
        """
        kinds = {operator.kind for operator in self.operators}
        if "dense" in kinds:
            return "dense"
        return "convolution" if kinds & {"conv", "pool"} and "graph_conv" not in kinds else "sparse"

    def current(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Turn (N, *source shape), uint8 or float32, into currents (N, *target shape), float32."""
        return ops.apply(self.operators, inputs[0]).float()

    def fan_outs(self, shapes: tuple[Shape, ...], *, nonzero: bool = False) -> tuple[np.ndarray, ...]:
        return (ops.fan_out(self.operators, shapes[0], nonzero=nonzero),)

    def product_units(self, target: Shape) -> int:
        return 0


@dataclass(frozen=True, eq=False)
class Product:
    """Attention's product of two populations: a unit per (query, key, channel) that fires where
    both of its inputs do.

    Part "m" has the source qkv (its q and k), and current = weight · q kᵀ [head, frame, query,
    key]. Part "z" has the sources m and qkv (its v), and current = weight · m v, with channel =
    head · d + i. The units count as neurons: deliveries to them are synaptic operations, and
    coincidences have a count of their own.
    """

    name: str
    part: Literal["m", "z"]
    sources: tuple[str, ...]
    target: str
    heads: int
    weight: float
    compensation_delays: tuple[int, ...]

    kind = "product"
    synapse_kind: ClassVar[SynapseKind] = "sparse"
    logical_delay = 0

    def current(self, inputs: tuple[Tensor, ...]) -> Tensor:
        n, channels, t, v = inputs[-1].shape
        # (3, N, T, heads, V, d)
        q, k, values = (
            inputs[-1].float().view(n, 3, self.heads, channels // 3 // self.heads, t, v).permute(1, 0, 4, 2, 5, 3)
        )
        if self.part == "m":
            return _weighted(q @ k.transpose(-1, -2), self.weight).transpose(1, 2)
        z = inputs[0].float().transpose(1, 2) @ values
        return _weighted(z, self.weight).permute(0, 2, 4, 1, 3).reshape(n, -1, t, v)

    def fan_outs(self, shapes: tuple[Shape, ...], *, nonzero: bool = False) -> tuple[np.ndarray, ...]:
        """Count units: q and k reach one for each of the V joints of the other; m reaches d
        channels, v reaches V queries.
        """
        channels, _, joints = shapes[-1]
        qkv = np.full(shapes[-1], joints, dtype=np.int64)
        if self.part == "m":
            qkv[2 * channels // 3 :] = 0
            return (qkv,)
        qkv[: 2 * channels // 3] = 0
        return (np.full(shapes[0], channels // 3 // self.heads, dtype=np.int64), qkv)

    def product_units(self, target: Shape) -> int:
        """Return the number of units, T · V² · C for either part."""
        if self.part == "m":
            heads, frames, joints, _ = target
            return frames * joints * joints * heads * self._width
        channels, frames, joints = target
        return channels * frames * joints * joints

    # channels per head, which do not follow from the map's shape
    _width: int = field(default=0, kw_only=True)


def _weighted(counts: Tensor, weight: float) -> Tensor:
    return counts if weight == 1.0 else counts.mul_(weight)


AnyProjection = Projection | Product


@dataclass(frozen=True, eq=False)
class Output:
    """A graph output, and the population whose value it is."""

    name: str
    population: str


@dataclass(frozen=True, eq=False)
class Program:
    """What every backend runs. Populations are in the order of evaluation."""

    precision: PrecisionName
    dt: float
    steps: int | None
    populations: tuple[Population, ...]
    projections: tuple[AnyProjection, ...]
    outputs: tuple[Output, ...]
    analog: frozenset[str] = frozenset()  # non-spiking inputs
    metadata: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Population:
        try:
            return self._by_name[name]
        except KeyError:
            raise DeployError(f"the program has no population {name!r}; it has {', '.join(self._by_name)}") from None

    @cached_property
    def _by_name(self) -> dict[str, Population]:
        return {population.name: population for population in self.populations}

    @property
    def quantization(self) -> dict[str, Any] | None:
        """How each population was quantised, as export's quantiser reports it; None for an
        unquantised file.
        """
        report = self.metadata.get("quantization")
        return None if report is None else json.loads(report)

    @property
    def inputs(self) -> tuple[Population, ...]:
        return tuple(p for p in self.populations if p.kind == "input")

    @property
    def neurons(self) -> tuple[Population, ...]:
        """Populations that fire."""
        return tuple(p for p in self.populations if p.fires)

    @cached_property
    def groups(self) -> dict[str, tuple[Population, ...]]:
        """Populations by execution group, both in the order of evaluation, without inputs."""
        groups: dict[str, list[Population]] = {}
        for population in self.populations:
            if population.kind != "input":
                groups.setdefault(population.group, []).append(population)
        return {name: tuple(members) for name, members in groups.items()}

    def loops(self, group: str) -> bool:
        """Return whether a group is computed step by step, because its own spikes come back to it."""
        inside = {p.name for p in self.groups[group]}
        return any(source in inside for name in inside for q in self.into(name) for source in q.sources)

    def sends_spikes(self, name: str) -> bool:
        """Return whether a population sends spikes; otherwise it sends currents."""
        population = self[name]
        return population.fires or (population.kind == "input" and name not in self.analog)

    @property
    def latency(self) -> int:
        """Time steps between the first input step of a sample and the first step of its output on
        the chip, product units included.
        """
        return max((self[output.population].chip_depth for output in self.outputs), default=0)

    @property
    def unit_steps(self) -> int:
        """Steps of the latency that belong to product units, which Lava computes within a step."""
        return self.latency - max((self[output.population].depth for output in self.outputs), default=0)

    def into(self, name: str) -> tuple[AnyProjection, ...]:
        return self._into.get(name, ())

    @cached_property
    def _into(self) -> dict[str, tuple[AnyProjection, ...]]:
        into: dict[str, list[AnyProjection]] = {}
        for projection in self.projections:
            into.setdefault(projection.target, []).append(projection)
        return {name: tuple(projections) for name, projections in into.items()}

    def fan_outs(self, projection: AnyProjection, *, nonzero: bool = False) -> tuple[np.ndarray, ...]:
        """Return the synapses that leave each neuron of each source, of the sources' shapes;
        computed once per projection.
        """
        # by projection, not by name: a node that feeds two populations gives its name to two projections
        key = (projection, nonzero)
        known = self._fan_outs  # read once: at first, another thread may replace it with its own dict
        if key not in known:
            shapes = tuple(self[source].shape for source in projection.sources)
            known[key] = projection.fan_outs(shapes, nonzero=nonzero)
        return known[key]

    @cached_property
    def _fan_outs(self) -> dict[tuple[AnyProjection, bool], tuple[np.ndarray, ...]]:
        return {}

    def crosses_synapses(self, projection: AnyProjection, source: str) -> bool:
        """Return whether a source reaches the target through synapses of the chip, which cost a time step.

        Within an execution group, and on the host, it reaches the target within the step.
        """
        target = self[projection.target]
        return target.location == "chip" and self[source].group != target.group

    def synaptic_delay(self, projection: AnyProjection, index: int) -> int:
        """Return the time steps that a spike is held back on the chip, besides the one that a synapse costs."""
        if not self.crosses_synapses(projection, projection.sources[index]):
            return 0
        return projection.compensation_delays[index] + projection.logical_delay

    def arrival_delay(self, projection: AnyProjection, index: int) -> int:
        """Return the steps of the sample by which the target sees a source late: the logical delay, in
        a balanced program.
        """
        source = projection.sources[index]
        if not self.crosses_synapses(projection, source):
            return projection.logical_delay
        return self[source].depth + 1 + self.synaptic_delay(projection, index) - self[projection.target].depth

    def with_populations(self, change: dict[str, Population]) -> Program:
        return replace(self, populations=tuple(change.get(p.name, p) for p in self.populations))


def float_neuron(population: Population) -> FloatNeuron:
    assert isinstance(population.neuron, FloatNeuron)
    return population.neuron
