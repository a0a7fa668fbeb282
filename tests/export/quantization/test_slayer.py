"""Quantisation-aware training against lava-dl's SLAYER, population by population: the same weights, decay, threshold, spikes.

SLAYER's CUBA neuron computes Lava's integers, u = trunc0(u (4096 - iDecay) / 4096) + a and likewise v, in units of 1/64
weight unit. Each test after the first holds one difference. `make test-lava-dl` runs them, on Python 3.10.
"""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl 0.6.0 needs Python 3.10")

from lava.lib.dl.slayer import synapse
from lava.lib.dl.slayer.neuron import cuba

from mksgn.deploy.program.neurons import FixedNeuron, prepare
from mksgn.export.loihi import HALF_STEP, MEMBRANE_MAX, SUB_UNITS
from mksgn.export.quantization.aware import QuantizationAwareStudent, quantization_aware
from mksgn.export.verification.verify import torch_spikes
from mksgn.train.datasets import synthetic
from tests.support.students import tiny
from tests.support.tiers import one_in

DV = 2048  # tau = 2
LOST = 4096  # from this threshold on, float32 drops the epsilon that SLAYER adds to it


def slayer_neuron(vth: int, i_decay: int = 4096, v_decay: int = DV, **options):
    return cuba.Neuron(vth / SUB_UNITS, i_decay / 4096, v_decay / 4096, scale=SUB_UNITS, **options)


def steps_last(x: torch.Tensor) -> torch.Tensor:
    """(S, N, ...) → (N, ..., S), and back with `steps_first`."""
    return x.movedim(0, -1)


def steps_first(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(-1, 0)


def slayer_population(
    network: QuantizationAwareStudent, name: str, branches: Sequence[tuple[str, torch.Tensor, int]]
) -> torch.Tensor:
    """The spikes (S, N, ...) of SLAYER's own synapses and neuron.

    Args:
        network: After a forward pass.
        name: The population.
        branches: (convolution, spikes (S, N, ...) into it, stride over the frames).
    """
    unit = network.quantiser.units[branches[0][0]]
    (threshold,) = {float(x) for x in network.nodes[name].v_threshold.flat}
    vth = threshold / (unit / 2) - HALF_STEP  # of a membrane that takes half of each current
    assert vth == int(vth) < LOST
    neuron, current = slayer_neuron(int(vth)), torch.zeros(())
    for conv, spikes, stride in branches:
        node = network.nodes[conv]
        integers = torch.from_numpy(np.asarray(node.weight / unit, np.float32))
        c_out, c_in, *kernel = integers.shape
        layer = synapse.Conv(
            c_in, c_out, tuple(kernel), (stride, 1), (kernel[0] // 2, 0), pre_hook_fx=neuron.quantize_8bit
        )
        layer.weight.data = integers[..., None] / SUB_UNITS
        assert torch.equal(neuron.quantize_8bit(layer.weight), layer.weight)
        bias = torch.from_numpy(np.asarray(node.bias / unit, np.float32)) / SUB_UNITS
        current = current + layer(steps_last(spikes)) + bias.view(-1, 1, 1, 1)
    return steps_first(neuron(current))


@pytest.mark.parametrize("bits", one_in(2, [4, 8]))
def test_populations_of_the_forward_pass_give_slayer_s_spikes(bits):
    """All that receive convolutions of spikes; SLAYER has neither a graph convolution nor attention."""
    model, inputs = tiny()
    network = quantization_aware(model, bits, synthetic.read(12, "train")).eval()
    recorded, _ = torch_spikes(network, inputs)  # samples first
    found = {name: torch.from_numpy(x.astype(np.float32)).swapaxes(0, 1) for name, x in recorded.items()}
    populations = {"smf": [("smf_conv", found["ssc"], 1)]}
    before = found["smf"]
    for i, stride in enumerate(network.config.strides, 1):
        block = f"block{i}"
        sgc, proj = found[f"{block}_sgc"], found[f"{block}_proj"]
        populations |= {
            f"{block}_qkv": [(f"{block}_qkv_conv", sgc, 1)],
            f"{block}_proj": [(f"{block}_proj_conv", found[f"{block}_attention.z"], 1), (f"{block}_proj_skip", sgc, 1)],
            f"{block}_stc": [(f"{block}_stc_conv", proj, stride), (f"{block}_stc_skip", before, stride)],
        }
        before = found[f"{block}_stc"]
    for name, branches in populations.items():
        with torch.no_grad():
            expected = slayer_population(network, name, branches)
        assert 0.005 < expected.mean() < 0.9, name
        assert int((found[name] != expected).sum()) == 0, name


def lava(currents: torch.Tensor, vth: int, du: int | None = None, dv: int = DV) -> tuple[torch.Tensor, torch.Tensor]:
    """Spikes and membranes before reset, in sub-units, of currents (S, ...) in weight units."""
    one = np.ones(1, np.int32)
    state = prepare(FixedNeuron(dv, vth * one, 0 * one, 0, du=du))
    membrane, found = state.start(currents[0]), []
    for a in currents:
        s, membrane, h = state.step(a, membrane)
        found.append((s.float(), h))
    spikes, membranes = zip(*found, strict=True)
    return torch.stack(spikes), torch.stack(membranes)


def slayer(neuron, currents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of SLAYER's neuron, for currents (S, 1, neurons)."""
    with torch.no_grad():
        _, voltage = neuron.dynamics(steps_last(currents) / SUB_UNITS)
        return steps_first(neuron.spike(voltage)), steps_first(voltage) * SUB_UNITS**2


@pytest.mark.parametrize("seed", range(4))
def test_any_decays_give_lava_s_states_step_by_step(seed):
    """At iDecay = du + 1, as netx writes it."""
    rng = np.random.default_rng(seed)
    du, dv, vth = (int(n) for n in rng.integers((0, 0, 20), (4096, 4096, 400)))
    currents = torch.from_numpy(rng.integers(-400, 600, (60, 1, 50)).astype(np.float32))
    spikes, membranes = lava(currents, vth, du, dv)
    assert spikes.any()
    found = slayer(slayer_neuron(vth, du + 1, dv), currents)
    assert torch.equal(found[0], spikes)
    assert torch.equal(found[1], membranes)


@pytest.mark.parametrize("vth", [1, 20, LOST - 1, LOST, LOST + 1, 131_071])
def test_slayer_fires_at_a_threshold_of_4096_or_more_itself(vth):
    """It compares with >=, after an addition of 0.01 sub-unit that float32 drops at 2^18 sub-units; Lava with >."""
    currents = torch.tensor([vth, vth + 1.0, vth - 1.0]).view(1, 1, 3)
    neuron = slayer_neuron(vth)
    assert neuron.threshold_eps == 0.01 / SUB_UNITS**2
    assert lava(currents, vth)[0].flatten().tolist() == [0, 1, 0]
    assert slayer(neuron, currents)[0].flatten().tolist() == [float(vth >= LOST), 1, 0]


def test_a_persistent_state_carries_a_sample_s_membranes_into_the_next():
    """Two passes are then one sample of twice the steps; without it every pass starts at rest, as ours does."""
    currents = torch.from_numpy(np.random.default_rng(0).integers(-100, 300, (8, 1, 40)).astype(np.float32))
    vth = 150
    for persistent in (False, True):
        neuron = slayer_neuron(vth, persistent_state=persistent)
        found = torch.cat([slayer(neuron, half)[0] for half in currents.chunk(2)])
        at_rest = torch.cat([lava(half, vth)[0] for half in currents.chunk(2)])
        assert torch.equal(found, lava(currents, vth)[0] if persistent else at_rest)
        assert torch.equal(found, at_rest) == (not persistent)


def test_a_membrane_below_24_bits_is_clipped_in_lava_only():
    """First where it falls below -(2^23 - 1)."""
    currents = torch.full((6, 1, 1), -40_000.0)
    clipped, free = lava(currents, 100, dv=0)[1].flatten(), slayer(slayer_neuron(100, v_decay=0), currents)[1].flatten()
    assert free.tolist() == [-40_000 * SUB_UNITS * t for t in range(1, 7)]
    assert clipped.tolist() == [max(x, -MEMBRANE_MAX) for x in free.tolist()]
    assert int((clipped != free).int().argmax()) == MEMBRANE_MAX // (40_000 * SUB_UNITS)
