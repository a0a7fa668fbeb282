"""The paper's energy formula: the energy that the published method would state for a run.

    E = E_MAC FL_1 + E_AC sum_l SOP_l        SOP_l = fr_l S MAC_l

fr_l is the mean firing rate of the layer's *input*, S the time steps, MAC_l the synapses of layer
l, and FL_1 the multiply-accumulates of the first layer, whose input is not spiking. E_MAC is 4.6 pJ
and E_AC 0.9 pJ (Horowitz 2014, 45 nm, FP32: horowitz45-fp32). Grade: inferred. The formula is that
of the authors' sibling models. Whether the paper uses exactly this one could not be established, and none
of its firing rates, MACs or SOPs is known. The formula prices arithmetic only: no memory, routing,
leakage or neuron update. Nor is it known whether FL_1 is charged once or at each of the S
steps. So there are three readings:

    energy_mJ             FL_1 once: the encoder's result is the same at every step and can be kept
    energy_every_step_mJ  FL_1 at each of the S steps
    strict_mJ             every layer with a non-spiking input as MACs, at each of the S steps

The last two differ only in layers on the chip that receive graded values (input_rate is None):
those of a layer without a threshold, pooled or averaged. The formula has MACs in the first layer
alone, so it charges such a layer as if each value were a spike, fr_l = 1 at E_AC. That is too
little, since a value times a weight is a MAC; the strict reading charges a MAC. A layer that
receives both spikes and graded values is taken as graded.

`dense_ops` of a layer on the chip is synapses x S x bodies, summed over the clips. So SOP_l =
input_rate x dense_ops / clips per clip. For the first layer, on the host, it is MACs x bodies x
encoder_steps, which is 1 unless the input differs from step to step. The measured syn_ops differ
from SOP_l where neurons of high rate have more or fewer synapses than the mean: at borders, with
strides, with zeros of the adjacency, or with several projections into a layer. The ratio shows by
how much.
"""

# ruff: noqa: N802, N815 - units keep their own spelling: mJ, pJ
from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

from mksgn.bench.choices import PAPER_MODEL
from mksgn.bench.energy_models import PJ_IN_MJ, EnergyModel, model_named
from mksgn.bench.prices import SynapticPrices
from mksgn.bench.record import Layer, Record
from mksgn.common.errors import BadInputError


@dataclass(frozen=True)
class LayerTheory:
    """The formula on one layer, per clip.

    `macs` are the first layer's, charged once; `strict_macs` those of a non-spiking input, charged
    at every step; both are 0 for other layers. `theory_sops` is fr_l S MAC_l; `syn_ops` are the
    deliveries that the run counted.
    """

    name: str
    macs: float
    strict_macs: float
    theory_sops: float
    syn_ops: float
    theory_mJ: float
    measured_mJ: float

    @property
    def ratio(self) -> float | None:
        """Measured / theory, in synaptic operations; None if theory has none, or if the input is not spiking."""
        return self.syn_ops / self.theory_sops if self.theory_sops and not self.strict_macs else None


@dataclass(frozen=True)
class Theory:
    """The formula over all layers, per clip, at the prices of one energy model."""

    layers: tuple[LayerTheory, ...]
    steps: int  # S
    mac_pJ: float
    ac_pJ: float
    encoder_steps: int = 1  # steps at which the first layer computes, as in `macs`

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
        """Measured / theory, in synaptic operations, over the layers with a spiking input."""
        spiking = [layer for layer in self.layers if not layer.strict_macs]
        sops = fsum(layer.theory_sops for layer in spiking)
        return fsum(layer.syn_ops for layer in spiking) / sops if sops else None

    @property
    def energy_mJ(self) -> float:
        """E with the first layer charged once."""
        return (self.mac_pJ * self.first_layer_macs + self.ac_pJ * self.theory_sops) * PJ_IN_MJ

    @property
    def energy_every_step_mJ(self) -> float:
        """E with the first layer charged S times."""
        macs = self.first_layer_macs * (self.steps // self.encoder_steps)
        return (self.mac_pJ * macs + self.ac_pJ * self.theory_sops) * PJ_IN_MJ

    @property
    def strict_mJ(self) -> float:
        """E with a MAC for every synapse of a layer with a non-spiking input, at each of the S steps."""
        macs = fsum(layer.strict_macs for layer in self.layers)
        sops = fsum(layer.theory_sops for layer in self.layers if not layer.strict_macs)
        return (self.mac_pJ * macs + self.ac_pJ * sops) * PJ_IN_MJ


def paper_formula(
    layers: Sequence[Layer], *, clips: int, steps: int, model: EnergyModel | None = None, encoder_steps: int = 1
) -> Theory:
    """Apply the formula to the layers of a run. Layers on the host are FL_1, all others belong to the sum.

    Args:
        layers: Layers with their counts over all clips.
        clips: Number of clips.
        steps: Time steps S of a clip.
        model: Energy model that gives E_MAC and E_AC; None: the paper's.
        encoder_steps: Steps at which the host computed the first layer; S where its input varies.

    Raises:
        BadInputError: The model has no price of a MAC or no single price of a synaptic operation, or there is no
            clip or step.
    """
    model = model_named(PAPER_MODEL) if model is None else model
    mac, ac = model.prices_pJ.mac, model.prices_pJ.synaptic_op
    if mac is None or ac is None or isinstance(ac, SynapticPrices):
        raise BadInputError(f"energy model {model.name}: the formula needs the price of a MAC and one of a synaptic op")
    if clips < 1 or steps < 1:
        raise BadInputError(f"the formula needs at least one clip and one step, got {clips} and {steps}")
    rows = []
    for layer in layers:
        dense, syn_ops = layer.dense_ops / clips, layer.syn_ops / clips
        first = layer.place == "host"
        graded = layer.input_rate is None and not first
        macs = dense if first else 0.0
        sops = 0.0 if first else dense * (1.0 if layer.input_rate is None else layer.input_rate)
        rows.append(
            LayerTheory(
                name=layer.name,
                macs=macs,
                strict_macs=dense * (steps // encoder_steps) if first else dense if graded else 0.0,
                theory_sops=sops,
                syn_ops=syn_ops,
                theory_mJ=(mac * macs + ac * sops) * PJ_IN_MJ,
                measured_mJ=(mac * (dense if first or graded else 0.0) + ac * syn_ops) * PJ_IN_MJ,
            )
        )
    return Theory(tuple(rows), steps, mac, ac, encoder_steps)


def theory_of(record: Record, model: EnergyModel | None = None) -> Theory:
    """Apply the formula to a run.json."""
    run = record.execution
    return paper_formula(
        record.layers, clips=record.data.clips, steps=run.steps, model=model, encoder_steps=run.encoder_steps
    )
