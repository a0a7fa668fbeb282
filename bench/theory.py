"""The paper's energy formula on a run's own layers: what the published method would have said of this run.

    E = E_MAC FL_1 + E_AC sum_l SOP_l        SOP_l = fr_l S MAC_l

fr_l: mean firing rate of the layer's *input*; S: time steps; MAC_l: synapses of layer l; FL_1: multiply-accumulates of
the first layer, whose input is analog; E_MAC 4.6 pJ and E_AC 0.9 pJ (Horowitz 2014, 45 nm, FP32: horowitz45-fp32).
Grade: inferred. The formula is that of the paper's line of work [kin]; that the paper uses exactly this could not be
read, and none of its firing rates, MACs or SOPs is known. It prices arithmetic only: no memory, routing, leakage or
neuron update. Whether FL_1 is charged once or at each of the S steps is not known either: both are given.

A run's layers table has `dense_ops` = synapses x S x lanes, summed over the clips; so per clip SOP_l =
input_rate x dense_ops / clips. The measured syn_ops differ where busy neurons have more or fewer synapses than the mean
(borders, strides, zeros of the adjacency, several projections into one layer): the ratio shows by how much.
"""

# ruff: noqa: N802, N815 - units keep their own spelling: mJ, pJ
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

from mksgn.bench.energy_models import PJ_IN_MJ, EnergyModel, model_named
from mksgn.bench.record import Layer, Record
from mksgn.train.errors import BadInputError

PAPER_MODEL = "horowitz45-fp32"


@dataclass(frozen=True)
class LayerTheory:
    """One layer, per clip."""

    name: str
    macs: float  # multiply-accumulates of an analog input, charged once; 0 for every other layer
    theory_sops: float  # fr_l S MAC_l
    syn_ops: float  # measured: deliveries that the run really had
    theory_mJ: float
    measured_mJ: float

    @property
    def ratio(self) -> float | None:
        """Measured / theory, in synaptic operations; None where theory has none."""
        return self.syn_ops / self.theory_sops if self.theory_sops else None


@dataclass(frozen=True)
class Theory:
    """The formula over all layers, per clip, at the prices of one energy model."""

    layers: tuple[LayerTheory, ...]
    steps: int  # S
    mac_pJ: float
    ac_pJ: float

    @property
    def first_layer_macs(self) -> float:
        return fsum(layer.macs for layer in self.layers)

    @property
    def theory_sops(self) -> float:
        return fsum(layer.theory_sops for layer in self.layers)

    @property
    def syn_ops(self) -> float:
        return fsum(layer.syn_ops for layer in self.layers)

    @property
    def ratio(self) -> float | None:
        return self.syn_ops / self.theory_sops if self.theory_sops else None

    @property
    def energy_mJ(self) -> float:
        """E with the first layer charged once."""
        return (self.mac_pJ * self.first_layer_macs + self.ac_pJ * self.theory_sops) * PJ_IN_MJ

    @property
    def energy_every_step_mJ(self) -> float:
        """E with the first layer charged S times."""
        return (self.mac_pJ * self.first_layer_macs * self.steps + self.ac_pJ * self.theory_sops) * PJ_IN_MJ


def paper_formula(layers: Sequence[Layer], *, clips: int, steps: int, model: EnergyModel | None = None) -> Theory:
    """The formula on a layers table whose counts run over `clips` clips of `steps` steps each.

    model: energy model to take E_MAC and E_AC from; None: the paper's. A layer with an analog input (input_rate None)
    belongs to FL_1, every other one to the sum.
    """
    model = model_named(PAPER_MODEL) if model is None else model
    mac, ac = model.prices_pJ.mac, model.prices_pJ.synaptic_op
    if mac is None or ac is None:
        raise BadInputError(f"energy model {model.name}: the formula needs the price of a MAC and of a synaptic op")
    if clips < 1 or steps < 1:
        raise BadInputError(f"the formula needs at least one clip and one step, got {clips} and {steps}")
    rows = []
    for layer in layers:
        macs = layer.dense_ops / clips if layer.input_rate is None else 0.0
        sops = 0.0 if layer.input_rate is None else layer.input_rate * layer.dense_ops / clips
        syn_ops = layer.syn_ops / clips
        rows.append(
            LayerTheory(
                name=layer.name,
                macs=macs,
                theory_sops=sops,
                syn_ops=syn_ops,
                theory_mJ=(mac * macs + ac * sops) * PJ_IN_MJ,
                measured_mJ=(mac * macs + ac * syn_ops) * PJ_IN_MJ,
            )
        )
    return Theory(tuple(rows), steps, mac, ac)


def theory_of(record: Record, model: EnergyModel | None = None) -> Theory:
    """The formula on a run.json."""
    return paper_formula(record.layers, clips=record.data.clips, steps=record.execution.steps, model=model)
