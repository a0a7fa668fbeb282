"""Placements counted neuron by neuron and synapse by synapse, and the small programs and chips that are placed."""

import math
from collections import defaultdict

import numpy as np
import torch

from mksgn.deploy import compile_graph
from mksgn.deploy.placement.chips import RESOURCES, Chip
from mksgn.deploy.placement.place import Placement
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.program import Population, Product, Program, Projection
from mksgn.export.loihi import WEIGHT_BITS
from tests.support.graphs import chain, inp, lif, linear, out, student_like


def tiny(neurons=10**6, bits=10**9, inputs=None, outputs=None, cores=4) -> Chip:
    return Chip("tiny", cores, neurons, bits, "invented", inputs, outputs)


def student() -> Program:
    """A network of the student's kind, with attention."""
    return compile_graph(student_like(np.random.default_rng(0)), precision="float")


def dense(inputs: int, outputs: int) -> Program:
    g = chain(("x", inp(inputs)), ("d", linear(np.ones((outputs, inputs)))), ("l", lif(outputs)), ("y", out(outputs)))
    return compile_graph(g, precision="float")


def hand_built(shapes: dict[str, tuple], *projections: Projection) -> Program:
    """A program of float populations that fire; those without a projection into them are inputs."""
    targets = {p.target for p in projections}
    populations = tuple(Population(n, s, "spiking" if n in targets else "input") for n, s in shapes.items())
    return Program("float", 1e-4, 4, populations, projections, ())


def connected(operators: ops.Operators, shape: tuple[int, ...]) -> np.ndarray:
    """Count the paths between neurons, (target, source), by one spike at a time through weights of 1."""
    one_by_one = torch.eye(math.prod(shape)).view(-1, *shape)
    currents = ops.apply(ops.with_weights(operators, np.ones_like), one_by_one)
    return np.rint(currents.flatten(1).T.numpy()).astype(int)


def unit_synapses(projection: Product, program: Program) -> list[tuple[str, str, np.ndarray]]:
    """List the synapses of a product's units as (source, target, matrix), unit by unit."""
    target = program[projection.target]
    stacked, frames, joints = program[projection.sources[-1]].shape
    channels, name = stacked // 3, f"{projection.target} units"
    shape, width = (channels, frames, joints, joints), channels // projection.heads
    into = {s: np.zeros((math.prod(shape), program[s].size), dtype=int) for s in projection.sources}
    onward = np.zeros((target.size, math.prod(shape)), dtype=int)
    for unit, (c, t, i, j) in enumerate(np.ndindex(*shape)):
        if projection.part == "m":
            ends = [(c, t, i), (channels + c, t, j)]
            sums = (c // width, t, i, j)
        else:
            ends = [(2 * channels + c, t, j)]
            sums = (c, t, i)
            maps = projection.sources[0]
            into[maps][unit, np.ravel_multi_index((c // width, t, i, j), program[maps].shape)] += 1
        for end in ends:
            into[projection.sources[-1]][unit, np.ravel_multi_index(end, (stacked, frames, joints))] += 1
        onward[np.ravel_multi_index(sums, target.shape), unit] += 1
    return [*((s, name, matrix) for s, matrix in into.items()), (name, projection.target, onward)]


def by_hand(placement: Placement) -> dict[str, np.ndarray]:
    """Count (cores, RESOURCES) by population, from lists of synapses and of the core of each neuron."""
    program = placement.program
    core = {p.name: p.core_of().ravel() for p in placement.populations}
    ends: list[tuple[str, str, np.ndarray]] = []
    for projection in program.projections:
        if isinstance(projection, Product):
            ends += unit_synapses(projection, program)
        elif projection.target in core:
            source = projection.source
            ends.append((source, projection.target, connected(projection.operators, program[source].shape)))
    used = np.zeros((placement.cores, len(RESOURCES)), dtype=int)
    arriving: dict[int, set] = defaultdict(set)
    reaching: dict[tuple, set] = defaultdict(set)
    for cores in core.values():
        used[:, 0] += np.bincount(cores, minlength=placement.cores)
    for source, target, paths in ends:
        np.add.at(used[:, 1], core[target], WEIGHT_BITS * paths.sum(1))
        for t, s in np.argwhere(paths):
            arriving[core[target][t]].add((source, s))
            if source in core:
                reaching[source, s].add(core[target][t])
    for number, sources in arriving.items():
        used[number, 2] = len(sources)
    for (source, s), targets in reaching.items():
        used[core[source][s], 3] += len(targets)
    return {p.name: used[p.first_core : p.first_core + p.cores] for p in placement.populations}


def assert_placed(placement: Placement, *, exact: bool = True) -> None:
    """Every neuron is on one core, every count is right, and no core exceeds a limit unless a single neuron does."""
    expected = by_hand(placement)
    first = 0
    for p in placement.populations:
        core = p.core_of()
        assert core.shape == p.shape
        assert sorted(np.unique(core)) == list(range(first, first + p.cores))  # none empty
        first += p.cores
        if exact:
            np.testing.assert_array_equal(p.usage, expected[p.name], err_msg=p.name)
        else:
            np.testing.assert_array_equal(p.usage[:, :2], expected[p.name][:, :2], err_msg=p.name)
            assert (p.usage >= expected[p.name]).all()
        assert p.synapses * WEIGHT_BITS == p.usage[:, 1].sum()
        assert np.broadcast_to(p.cores_reached, p.shape).sum() == p.usage[:, 3].sum()
        for resource, used, limit in zip(RESOURCES, p.usage.T, placement.chip.core_limits, strict=True):
            if not any((o.name, o.quantity) == (p.name, resource) for o in placement.overflows):
                assert limit is None or used.max() <= limit, f"{p.name}: {resource}"
