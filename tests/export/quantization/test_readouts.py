"""mksgn/export/quantization/readouts: read-outs keep their units."""

import nir
import numpy as np
import pytest

from mksgn.export.quantization.quantize import quantize
from mksgn.export.reference.execute import execute
from tests.export.quantization.networks import IF_DT, in_units, neuron, spikes
from tests.support.graphs import DT, chain, inp, lif, linear, out


@pytest.mark.parametrize("kind", ["LI", "I", "CubaLI"])
def test_graded_readouts_keep_their_units(kind):
    rng = np.random.default_rng(0)
    spiking = neuron(rng, "CubaLIF", 3)
    readout = {
        "LI": nir.LI(spiking.tau_mem, spiking.r, spiking.v_leak),
        "I": nir.I(spiking.r),
        "CubaLI": nir.CubaLI(spiking.tau_syn, spiking.tau_mem, spiking.r, spiking.v_leak, spiking.w_in),
    }[kind]
    g = chain(
        ("x", inp(6)), ("w", linear(rng.normal(size=(8, 6)))), ("n", lif(8, threshold=0.2)),
        ("v", linear(rng.normal(size=(3, 8)))),
        ("shown", readout), ("y", out(3)),
    )  # fmt: skip
    x = spikes(rng, 4, 8, 6)
    quantised, scales = quantize(g, 8, x, 8, DT, IF_DT)
    in_units(quantised)
    assert scales["shown"].scale == 2.0 ** -scales["shown"].exponent
    assert scales["shown"].agreement is None
    a, b = (execute(h, x, 8, DT, stepwise=True, if_dt=IF_DT) for h in (g, quantised))
    assert (a.spikes["n"] == b.spikes["n"]).all(2).mean() > 0.9  # where no spike differs, the membranes are near
    same = (a.spikes["n"] == b.spikes["n"]).all((0, 2))
    assert same.any()
    np.testing.assert_allclose(
        a.outputs["y"][:, same], b.outputs["y"][:, same], atol=0.02 * np.abs(a.outputs["y"]).max()
    )
