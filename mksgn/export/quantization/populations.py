"""Populations in Loihi's integers: their scale, weights, bias and threshold.

With `gain` = dt/tau r (LIF, LI), dt r (IF, I) or dt/tau_mem r dt/tau_syn w_in (CubaLIF, CubaLI), neuron by neuron, v / gain counts the
membrane in units of the weights. Its threshold is v_threshold / gain, and v_leak drives it by v_leak (dt/tau) / gain at each step, as
Loihi's bias does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import nir
import numpy as np

from mksgn.export import loihi
from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.kinds import CURRENT_BASED, SPIKING
from mksgn.export.graph.nodes import f32
from mksgn.export.graph.weights import row_sums, set_weight, weight_of
from mksgn.export.lowering.fold import check_finite
from mksgn.export.quantization.biases import Biases, check_unbiased
from mksgn.export.quantization.calibration import Calibration, agreement, input_lattice, input_peak
from mksgn.export.quantization.paths import Branch, branches, pooled
from mksgn.export.quantization.scales import PopulationScale, choose

PerNeuron = float | np.ndarray  # a float where all neurons share it


@dataclass(frozen=True)
class Membrane:
    """A neuron node in units of its weights. `rate` 0: nothing leaks; `synaptic` 1: no memory in the current."""

    gain: PerNeuron
    rate: PerNeuron
    synaptic: PerNeuron
    drive: np.ndarray  # of v_leak, at each step; the population's shape

    def rates(self) -> set[float]:
        """What each step multiplies the lattice of a membrane by."""
        found = {float(x) for p in (self.rate, self.synaptic) for x in np.unique(p)}
        return found - {0.0, 1.0} or {1.0}


def membrane_of(name: str, node: nir.NIRNode, dt: float, if_dt: float | None) -> Membrane:
    """Raises RangeError for decays beyond Loihi's 12 bits, and UnsupportedNodeError for what its neuron cannot do."""
    r = np.asarray(node.r, dtype=np.float64)
    rate, synaptic, drive = np.zeros(r.shape), np.ones(r.shape), np.zeros(r.shape)
    gain: np.ndarray
    if isinstance(node, nir.IF | nir.I):
        step = np.float32(dt if if_dt is None else if_dt)
        gain = np.asarray(step * np.asarray(node.r, dtype=np.float32), dtype=np.float64)
    else:
        rate = loihi.dt_over(node.tau_mem if isinstance(node, CURRENT_BASED) else node.tau, dt)
        for extreme in (rate.min(), rate.max()):
            loihi.check_decay(name, float(extreme))
        gain = rate * r
        if isinstance(node, CURRENT_BASED):
            synaptic = loihi.dt_over(node.tau_syn, dt)
            for extreme in (synaptic.min(), synaptic.max()):
                loihi.check_current_decay(name, float(extreme))
            gain = gain * synaptic * np.asarray(node.w_in, dtype=np.float64)
        drive = np.asarray(node.v_leak, dtype=np.float64) * rate
    check_finite(name, gain, drive)
    if not np.all(gain > 0):
        raise UnsupportedNodeError(
            f"node {name}: r or w_in is not positive ({gain.min():.4g}); fold its sign into the weights"
        )
    if isinstance(node, SPIKING):
        check_finite(name, node.v_threshold)
        if np.any(node.v_reset):
            raise UnsupportedNodeError(
                f"node {name}: v_reset ({np.asarray(node.v_reset).max():.4g}) is not 0, where Loihi's membrane starts again; shift its "
                "potentials"
            )
        if not np.min(node.v_threshold) > 0:
            raise UnsupportedNodeError(
                f"node {name}: v_threshold ({np.min(node.v_threshold):.4g}) must lie above 0, where a membrane starts; shift its potentials"
            )
    return Membrane(loihi.one_if_shared(gain), loihi.one_if_shared(rate), loihi.one_if_shared(synaptic), drive / gain)


def spiking(graph: nir.NIRGraph, name: str, bits: int, membrane: Membrane, values: Calibration) -> PopulationScale:
    """Quantise the population `name` and the weights on its ways, in place."""
    node, incoming = graph.nodes[name], ways_into(graph, name, values)
    nodes = {branch.weighted: graph.nodes[branch.weighted] for branch in incoming}
    weights = {key: weight_of(n) for key, n in nodes.items()}
    biases = Biases(graph, name, incoming, membrane.drive)
    check_finite(name, *weights.values(), biases.total)
    threshold = loihi.one_if_shared(np.asarray(node.v_threshold, dtype=np.float64) / membrane.gain)
    analog = any(branch.source in values.analog for branch in incoming)
    peak = input_peak(graph, values.inputs[incoming[0].source]) if analog else 1.0
    worst = sum(worst_sum(graph, branch, weights[branch.weighted]) for branch in incoming) * peak
    worst += np.abs(biases.total).max()
    largest = max(np.abs(w).max(initial=0) for w in weights.values())
    finest = min(1.0, 2.0 * input_lattice(graph)) if analog else 1.0  # of even weights times an analog input's steps
    half, lattice = _lattice(graph, membrane, finest, values.steps)
    limits = loihi.limits(
        bits,
        largest,
        np.max(threshold),
        np.abs(biases.total).max(),
        worst,
        accumulation_factor(membrane, values.steps),
        half,
        lattice,
    )
    if analog:
        del limits["worst membrane"]  # the host sums it in float32
    binding = min(limits, key=lambda key: limits[key])
    hard = min(value for key, value in limits.items() if key != "weights")
    wanted, currents = values.spikes(name), values.currents(nodes, incoming)
    cuba = isinstance(node, CURRENT_BASED)

    def integers(scale: float) -> tuple[dict[str, np.ndarray], PerNeuron]:
        whole = {key: loihi.even(w * scale, bits) for key, w in weights.items()}
        return whole, loihi.one_if_shared(np.asarray(loihi.threshold_above(threshold * scale, half)))

    def tried(scale: float) -> tuple[float, float]:
        whole_weights, whole_threshold = integers(scale)
        current, drive = currents(whole_weights), biases.whole(scale)[1].astype(np.float32)
        current = current if cuba else current + drive
        agreed = agreement(wanted, current, membrane.rate, whole_threshold, membrane.synaptic, drive if cuba else 0.0)
        return agreed, float(np.abs(current).max())

    scale, (agreed, largest_sum) = choose(limits[binding], hard, tried)
    unit = 2.0 ** _exponent(float(np.max(threshold * scale * membrane.gain)))
    whole_weights, whole_threshold = integers(scale)
    for key, n in nodes.items():
        set_weight(n, whole_weights[key] * unit)
    biases.write(scale, unit, membrane.gain, membrane.rate)
    node.v_threshold = f32(np.broadcast_to(whole_threshold * membrane.gain * unit, node.v_threshold.shape))
    clipped = loihi.saturated(weights.values(), scale, bits)
    return PopulationScale(
        round(math.log2(unit)), scale, binding, clipped, agreed, float(wanted.mean()), float(worst * scale), largest_sum
    )


def ways_into(graph: nir.NIRGraph, name: str, values: Calibration) -> list[Branch]:
    incoming = branches(graph, name)
    if not incoming:
        raise UnsupportedNodeError(f"node {name}: no edge leads into it; connect it, or leave it out")
    check_unbiased(graph, name, incoming)
    analog = sorted({branch.source for branch in incoming} & values.analog)
    others = sorted({branch.source for branch in incoming} - values.analog)
    if analog and others:
        raise UnsupportedNodeError(
            f"node {name}: the analog input {analog[0]} and the spikes of {others[0]} meet in it; encode the analog input by a population "
            "of its own"
        )
    return incoming


def _lattice(graph: nir.NIRGraph, membrane: Membrane, finest: float, steps: int) -> tuple[float, float]:
    """How far thresholds lie above integers, and the lattice that float32 has to hold.

    A student is compared with torch decision by decision, however many steps it has. Any other network whose membranes are finer than
    Loihi's sub-units anyway keeps finer weights rather than exact membranes.
    """
    rate = min(membrane.rates())
    if "student" in graph.metadata or all(loihi.exact_on_chip(r, steps) for r in membrane.rates()):
        return loihi.threshold_offset(rate, steps, finest), finest * rate**steps
    return min(loihi.HALF_STEP, finest / 2), math.inf


def accumulation_factor(membrane: Membrane, steps: int) -> float:
    rate = loihi.decay_as_quantized(float(np.min(membrane.rate)))
    synaptic = float(np.min(membrane.synaptic))
    return loihi.accumulation_factor(steps, rate, synaptic if synaptic == 1 else loihi.decay_as_quantized(synaptic))


def _exponent(threshold: float) -> int:
    """k such that the file's largest threshold lies in (0.5, 1]."""
    return -math.ceil(math.log2(threshold))


def worst_sum(graph: nir.NIRGraph, branch: Branch, weight: np.ndarray) -> float:
    """Largest sum of |weights| into one neuron, were all of the source's neurons to fire."""
    into = float(row_sums(graph.nodes[branch.weighted], weight).max())
    return into * pooled(graph, branch.before) * pooled(graph, branch.behind)
