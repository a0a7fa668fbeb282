"""mksgn/deploy/passes/neurons: NIR's neurons in Lava's terms."""

import numpy as np
import pytest

from mksgn.deploy.errors import DeployError
from mksgn.deploy.passes.ingest import ingest
from tests.deploy.passes.networks import agree, rng
from tests.support.graphs import DT, F32, affine, chain, inp, lattice, lif, linear, out, spikes, student_like


@pytest.mark.parametrize("tau_steps", [1, 2, 4])
@pytest.mark.parametrize("r", [1.0, 2.0, 0.25])
def test_time_constants_and_resistance(tau_steps, r):
    g = rng(14)
    net = chain(
        ("x", inp(4)),
        ("d", affine(lattice(g, 6, 4, most=24), lattice(g, 6))),
        ("l", lif(6, tau=tau_steps * DT, r=r, threshold=0.25)),
        ("y", out(6)),
    )
    agree(net, spikes(g, 6, 6, 4))
    neuron = ingest(net)["l"].neuron
    assert neuron.decay == 1 / tau_steps
    assert neuron.threshold.item() == 0.25 * tau_steps / r


def test_other_ratios_of_dt_and_tau():
    r = rng(15)
    net = chain(
        ("x", inp(4)),
        ("d", affine(lattice(r, 6, 4, most=24), lattice(r, 6))),
        ("l", lif(6, tau=3 * DT, threshold=0.913, r=1.7)),
        ("y", out(6)),
    )
    agree(net, spikes(r, 4, 6, 4), exact=False)


def test_dt_over_tau_is_rounded_to_float32():
    """In double, dt over a float32 tau of 2e-4 is 0.5000000126, and lattice sums would no longer be exact."""
    assert 1e-4 / float(F32(2e-4)) != 0.5
    net = chain(("x", inp(1)), ("d", linear(np.ones((1, 1)))), ("l", lif(1, tau=2e-4)), ("y", out(1)))
    assert ingest(net)["l"].neuron.decay == 0.5


def test_a_leak_is_a_bias_and_a_reset_is_kept():
    """State starts at 0, so that nothing is shifted to the resting potential."""
    r = rng(16)
    net = chain(
        ("x", inp(4)),
        ("d", affine(lattice(r, 6, 4, most=24), lattice(r, 6))),
        ("l", lif(6, leak=0.5, threshold=1.25, reset=-0.25)),
        ("y", out(6)),
    )
    agree(net, spikes(r, 4, 6, 4))
    neuron = ingest(net)["l"].neuron
    assert (neuron.threshold.item(), neuron.reset.item()) == (2.5, -0.5)  # tau/dt of them
    np.testing.assert_array_equal(neuron.bias, net.nodes["d"].bias + 0.5)


def test_a_threshold_per_neuron():
    r = rng(17)
    thresholds = np.array([0.25, 0.5, 1.0, 2.0])
    net = chain(
        ("x", inp(3)),
        ("d", affine(lattice(r, 4, 3, most=24), lattice(r, 4))),
        ("l", lif(4, threshold=thresholds)),
        ("y", out(4)),
    )
    agree(net, spikes(r, 4, 6, 3))
    np.testing.assert_array_equal(ingest(net)["l"].neuron.threshold, 2 * thresholds)


def test_constant_parameters_are_kept_once():
    neuron = ingest(student_like(rng(21)))["spatial"].neuron
    assert neuron.threshold.shape == (1, 1, 1)
    assert neuron.bias.shape == (4, 1, 1)


@pytest.mark.parametrize(
    ("neuron", "message"),
    [
        (
            lif(2, tau=5e-5),
            r"node l: dt/tau runs from 2 to 2, outside \(0, 1\]: the time step is longer than .*; set --dt",
        ),
        (lif(2, tau=[5e-5, 2e-4]), r"node l: dt/tau runs from 0\.5 to 2, outside"),
        (
            lif(2, threshold=-50, leak=-65),
            r"node l: v_threshold \(-50\) lies below 0, where its state starts.* rests at 0",
        ),
    ],
)
def test_parameters_that_no_population_can_have(neuron, message):
    with pytest.raises(DeployError, match=message):
        ingest(chain(("x", inp(2)), ("d", linear(np.eye(2))), ("l", neuron), ("y", out(2))))
