"""Spiking populations in Loihi's integers: their scale, weights, bias and threshold."""

import math
from collections.abc import Mapping
from dataclasses import replace

import nir
import numpy as np

from mksgn.export import loihi
from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.kinds import CURRENT_BASED, LEAKLESS, SPIKING
from mksgn.export.graph.membranes import Membrane, PerNeuron, membrane_of
from mksgn.export.graph.nodes import f32
from mksgn.export.graph.paths import LinearPaths
from mksgn.export.lowering.fold import check_finite
from mksgn.export.quantization.calibration import Calibration, agreement, input_lattice
from mksgn.export.quantization.scales import FINER, FINER_OF_TWO_BITS, Candidate, FixedScales, PopulationScale, choose
from mksgn.export.quantization.synapses import Synapses


def loihi_membrane(name: str, node: nir.NIRNode, dt: float, if_dt: float | None) -> Membrane:
    """Read a neuron node's constants, each a single number if all neurons share it.

    Raises:
        RangeError: A decay does not fit Loihi's 12 bits.
        UnsupportedNodeError: Loihi's neuron cannot do what the node does.
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
        if not np.min(node.v_threshold) > 0:
            raise UnsupportedNodeError(
                f"node {name}: v_threshold must be above v_reset; v_threshold - v_reset is "
                f"{np.min(node.v_threshold):.4g}; "
                "correct the node's potentials"
            )
    constants = gain, np.asarray(membrane.decay), np.asarray(membrane.current_decay)
    shared_gain, decay, current_decay = (loihi.one_if_shared(x) for x in constants)
    return replace(membrane, gain=shared_gain, decay=decay, current_decay=current_decay)


def lattice_rates(membrane: Membrane) -> set[float]:
    """Return the factors by which each step multiplies the lattice of a population's membranes."""
    rates = {float(x) for decay in (membrane.decay, membrane.current_decay) for x in np.unique(decay)}
    return rates - {0.0, 1.0} or {1.0}


class SpikingPopulation:
    """A spiking population that is to be quantised, and the weights on the paths into it.

    Args:
        walk: The walk along the linear paths of the graph whose nodes `write` changes.
        name: The population.
        membrane: Its constants.
        values: The calibration samples, or the scales that replace them.
    """

    def __init__(self, walk: LinearPaths, name: str, membrane: Membrane, values: Calibration | FixedScales) -> None:
        graph = walk.graph
        self.name, self.node, self.membrane, self.values = name, graph.nodes[name], membrane, values
        self.synapses = Synapses(walk, name, membrane, values)
        self.threshold = loihi.one_if_shared(np.asarray(self.node.v_threshold, dtype=np.float64) / membrane.gain)
        # even weights times an analog input's lattice
        finest = min(1.0, 2.0 * input_lattice(graph)) if self.synapses.analog else 1.0
        self.offset, self.lattice = self._offset_and_lattice("student" in graph.metadata, finest)

    def format(self, weights: loihi.WeightFormat) -> loihi.WeightFormat:
        """Return the format of its weights, given that of weights on the chip."""
        return loihi.WeightFormat(loihi.HOST_WEIGHT_BITS) if self.synapses.analog else weights

    def quantise(self, weights: loihi.WeightFormat) -> PopulationScale:
        """Choose the scale, and write the integers; `weights` is the format on the chip."""
        values, synapses, own = self.values, self.synapses, self.format(weights)
        limits = self._limits(own, self.offset, self.lattice)
        binding = min(limits, key=lambda key: limits[key])
        if isinstance(values, FixedScales):
            chosen = values.check(self.name, limits)
        else:
            others = min(limit for key, limit in limits.items() if key != "weights")
            factors = FINER_OF_TWO_BITS if own.bits == 2 else FINER
            chosen = choose(limits[binding], others, lambda scale: self._measure(scale, own, values), factors)
        self.write(chosen.scale, own.bits, chosen.exponents)
        return PopulationScale(
            round(math.log2(self.unit(chosen.scale))),
            chosen.scale,
            binding,
            synapses.saturated(chosen.scale, own.bits, chosen.exponents),
            chosen.agreement,
            firing_rate=values.firing_rate(self.name),
            worst_sum=float(synapses.worst_sum * chosen.scale),
            largest_sum=chosen.largest_sum,
            weight_exponents={key: e for key, e in chosen.exponents.items() if e and key in synapses.nodes},
        )

    def _limits(self, weights: loihi.WeightFormat, offset: float, lattice: float) -> dict[str, float]:
        threshold = float(np.max(self.threshold))
        return self.synapses.limits(weights, self.values.steps, threshold=threshold, offset=offset, lattice=lattice)

    def _offset_and_lattice(self, student: bool, finest: float) -> tuple[float, float]:
        """Return how far thresholds lie above integers, and the lattice that float32 has to hold.

        A student is compared with torch decision by decision, unless it has so many steps that float32 would leave
        no weight but 0. Such a student, and any other network whose membranes are finer than Loihi's sub-units, keeps
        finer weights rather than exact membranes.
        """
        rates, steps, largest = lattice_rates(self.membrane), self.values.steps, self.synapses.largest_weight
        if student or all(loihi.exact_on_chip(rate, steps) for rate in rates):
            exact = loihi.threshold_offset(min(rates), steps, finest), finest * min(rates) ** steps
            if not largest or self._limits(loihi.WeightFormat(loihi.WEIGHT_BITS), *exact)["float32"] * largest >= 2:
                return exact
        return min(loihi.HALF_STEP, finest / 2), math.inf

    def unit(self, scale: float) -> float:
        """Return the value in the file of an integer of `scale`, so that the largest threshold lies in (0.5, 1]."""
        return 2.0 ** -math.ceil(math.log2(float(np.max(self.threshold * scale * self.membrane.gain))))

    def write(self, scale: float, bits: int, exponents: Mapping[str, int]) -> None:
        """Replace weights, biases and threshold with the integers of `scale`, in units of the file."""
        unit, node, membrane = self.unit(scale), self.node, self.membrane
        self.synapses.write(scale, unit, bits, exponents)
        factor = membrane.gain * unit  # value of an integer in the file
        node.v_threshold = f32(np.broadcast_to(self._rounded_threshold(scale) * factor, node.v_threshold.shape))
        if membrane.subtract is not None:  # makes what a spike subtracts a whole number
            node.v_reset = f32(np.broadcast_to(self.offset * factor, node.v_threshold.shape))
        if np.any(membrane.initial):
            initial = np.rint(membrane.initial / membrane.gain * scale * loihi.SUB_UNITS) / loihi.SUB_UNITS
            node.metadata["v_init"] = f32(np.broadcast_to(initial * factor, node.v_threshold.shape))

    def _rounded_threshold(self, scale: float) -> PerNeuron:
        return loihi.one_if_shared(np.asarray(loihi.round_threshold(self.threshold * scale, self.offset)))

    def _in_integers(self, scale: float) -> Membrane:
        """Return the membrane with its initial state, and what a spike subtracts, in integers of `scale`."""
        membrane = self.membrane
        taken = None if membrane.subtract is None else np.asarray(self._rounded_threshold(scale)) - self.offset
        return replace(membrane, initial=membrane.initial / membrane.gain * scale, subtract=taken)

    def _measure(self, scale: float, weights: loihi.WeightFormat, values: Calibration) -> Candidate:
        synapses, exponents = self.synapses, self.synapses.exponents(scale, weights)
        rounded = {key: synapses.rounded(key, scale, weights.bits, e) for key, e in exponents.items()}
        current = values.currents(synapses.nodes, synapses.paths, rounded)
        _, to_membrane, to_current = synapses.biases.integers(scale)
        drive: PerNeuron = to_membrane.astype(np.float32)
        current = current + to_current.astype(np.float32)
        if not isinstance(self.node, CURRENT_BASED):
            current, drive = current + drive, 0.0
        spikes, threshold = values.spikes(self.name), self._rounded_threshold(scale)
        agreed = agreement(spikes, current, self._in_integers(scale), threshold, drive)
        return Candidate(scale, exponents, agreed, float(np.abs(current).max()))
