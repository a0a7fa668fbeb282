"""Spiking populations in Loihi's integers: their scale, weights, bias and threshold."""

import math

import nir
import numpy as np

from mksgn.export import loihi
from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.kinds import CURRENT_BASED, LEAKLESS, SPIKING
from mksgn.export.graph.membranes import Membrane, PerNeuron, membrane_of
from mksgn.export.graph.nodes import f32
from mksgn.export.lowering.fold import check_finite
from mksgn.export.quantization.calibration import Calibration, agreement, input_lattice
from mksgn.export.quantization.scales import Candidate, PopulationScale, choose
from mksgn.export.quantization.synapses import Synapses


def loihi_membrane(name: str, node: nir.NIRNode, dt: float, if_dt: float | None) -> Membrane:
    """Read a neuron node's constants, each one number where all neurons share it.

    Raises:
        RangeError: Decays beyond Loihi's 12 bits.
        UnsupportedNodeError: What Loihi's neuron cannot do.
    """
    membrane = membrane_of(node, dt, np.float32(dt if if_dt is None else if_dt))
    if not isinstance(node, LEAKLESS):
        loihi.decay_integers(name, membrane.decay)
    if isinstance(node, CURRENT_BASED):
        loihi.decay_integers(name, membrane.current_decay, current=True)
    gain = np.asarray(membrane.gain)
    check_finite(name, gain, membrane.leak)
    if not np.all(gain > 0):
        raise UnsupportedNodeError(
            f"node {name}: r or w_in is not positive ({gain.min():.4g}); fold its sign into the weights"
        )
    if isinstance(node, SPIKING):
        check_finite(name, node.v_threshold)
        if np.any(node.v_reset):
            raise UnsupportedNodeError(
                f"node {name}: v_reset ({np.asarray(node.v_reset).max():.4g}) is not 0, to which Loihi "
                "resets its membrane; shift the node's potentials"
            )
        if not np.min(node.v_threshold) > 0:
            raise UnsupportedNodeError(
                f"node {name}: v_threshold ({np.min(node.v_threshold):.4g}) must lie above 0, "
                "where a membrane starts; shift the node's potentials"
            )
    decay, current_decay = np.asarray(membrane.decay), np.asarray(membrane.current_decay)
    return Membrane(
        loihi.one_if_shared(gain), loihi.one_if_shared(decay), loihi.one_if_shared(current_decay), membrane.leak
    )


def lattice_rates(membrane: Membrane) -> set[float]:
    """What each step multiplies the lattice of a population's membranes by."""
    rates = {float(x) for decay in (membrane.decay, membrane.current_decay) for x in np.unique(decay)}
    return rates - {0.0, 1.0} or {1.0}


def spiking(graph: nir.NIRGraph, name: str, bits: int, membrane: Membrane, values: Calibration) -> PopulationScale:
    """Quantise the population `name` and the weights on the paths into it, in place."""
    node, synapses = graph.nodes[name], Synapses(graph, name, membrane, values)
    threshold = loihi.one_if_shared(np.asarray(node.v_threshold, dtype=np.float64) / membrane.gain)
    # of even weights times the steps of an analog input
    finest = min(1.0, 2.0 * input_lattice(graph)) if synapses.analog else 1.0
    offset, lattice = _offset_and_lattice(graph, membrane, finest, values.steps)
    limits = synapses.limits(bits, values.steps, threshold=float(np.max(threshold)), offset=offset, lattice=lattice)
    binding = min(limits, key=lambda key: limits[key])
    spikes = values.spikes(name)
    current_based = isinstance(node, CURRENT_BASED)

    def rounded_threshold(scale: float) -> PerNeuron:
        return loihi.one_if_shared(np.asarray(loihi.round_threshold(threshold * scale, offset)))

    def measure(scale: float) -> Candidate:
        weights = {key: loihi.round_weights(w * scale, bits) for key, w in synapses.weights.items()}
        current = values.currents(synapses.nodes, synapses.paths, weights)
        drive: PerNeuron = synapses.biases.integers(scale)[1].astype(np.float32)
        if not current_based:
            current, drive = current + drive, 0.0
        agreed = agreement(spikes, current, membrane, rounded_threshold(scale), drive)
        return Candidate(scale, agreed, float(np.abs(current).max()))

    chosen = choose(limits[binding], min(limit for key, limit in limits.items() if key != "weights"), measure)
    # the largest threshold of the file lies in (0.5, 1]
    unit = 2.0 ** -math.ceil(math.log2(float(np.max(threshold * chosen.scale * membrane.gain))))
    synapses.write(chosen.scale, unit, bits)
    node.v_threshold = f32(
        np.broadcast_to(rounded_threshold(chosen.scale) * membrane.gain * unit, node.v_threshold.shape)
    )
    return PopulationScale(
        round(math.log2(unit)),
        chosen.scale,
        binding,
        loihi.count_saturated(synapses.weights.values(), chosen.scale, bits),
        chosen.agreement,
        firing_rate=float(spikes.mean()),
        worst_sum=float(synapses.worst_sum * chosen.scale),
        largest_sum=chosen.largest_sum,
    )


def _offset_and_lattice(graph: nir.NIRGraph, membrane: Membrane, finest: float, steps: int) -> tuple[float, float]:
    """How far thresholds lie above integers, and the lattice that float32 has to hold.

    A student is compared with torch decision by decision, however many steps it has. Any other network
    whose membranes are finer than Loihi's sub-units keeps finer weights rather than exact membranes.
    """
    rates = lattice_rates(membrane)
    if "student" in graph.metadata or all(loihi.exact_on_chip(rate, steps) for rate in rates):
        return loihi.threshold_offset(min(rates), steps, finest), finest * min(rates) ** steps
    return min(loihi.HALF_STEP, finest / 2), math.inf
