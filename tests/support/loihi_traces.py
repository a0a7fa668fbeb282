"""States and spikes of Loihi's neuron step by step: by the emulator, and by brian2-loihi, which is imported when it is used."""

import logging
from dataclasses import dataclass

import numpy as np
import torch

from mksgn.deploy.program.neurons import FixedNeuron, prepare
from mksgn.export.loihi import SUB_UNITS


@dataclass(frozen=True)
class Trace:
    """States after each step, in sub-units, and spikes: int64 (steps, neurons)."""

    u: np.ndarray
    v: np.ndarray
    spikes: np.ndarray

    def same(self, other: "Trace", where: np.ndarray | slice = slice(None)) -> None:
        for name in ("u", "v", "spikes"):
            np.testing.assert_array_equal(getattr(self, name)[where], getattr(other, name)[where], err_msg=name)


def synapses(weight: np.ndarray, group, spikes: np.ndarray, w_exp: int) -> list:
    """Return brian2-loihi's source of spikes (steps, inputs), and its mixed-sign synapses (neurons, inputs)."""
    import brian2_loihi as loihi1

    times, indices = np.nonzero(spikes)
    source = loihi1.LoihiSpikeGeneratorGroup(spikes.shape[1], indices, times)
    made = loihi1.LoihiSynapses(source, group, w_exp=w_exp, sign_mode=loihi1.synapse_sign_mode.MIXED)
    into, out_of = (axis.ravel() for axis in np.indices(weight.shape))
    made.connect(i=out_of, j=into)
    made.w = weight.ravel()
    return [source, made]


def theirs(weight, spikes, decay_i: int, decay_v: int, vth: int, *, w_exp: int = 0, refractory: int = 1) -> Trace:
    """Run brian2-loihi on weights (neurons, inputs) and spikes (steps, inputs); it needs no compiler."""
    import brian2
    import brian2_loihi as loihi1

    brian2.prefs.codegen.target = "numpy"
    logging.getLogger("brian2").setLevel(logging.WARNING)  # it logs all code that it makes
    group = loihi1.LoihiNeuronGroup(
        len(weight), refractory=refractory, threshold_v_mant=vth, decay_v=decay_v, decay_I=decay_i
    )
    current, membrane = (loihi1.LoihiStateMonitor(group, name) for name in "Iv")
    fired = loihi1.LoihiSpikeMonitor(group)
    network = loihi1.LoihiNetwork(group, *synapses(weight, group, spikes, w_exp), current, membrane, fired)
    network.run(len(spikes))
    train = np.zeros((len(spikes), len(weight)), np.int64)
    train[np.asarray(fired.t), np.asarray(fired.i)] = 1
    u, v = (np.asarray(x).T for x in (current.I, membrane.v))
    assert (u == np.rint(u)).all()
    assert (v == np.rint(v)).all()
    return Trace(u.astype(np.int64), v.astype(np.int64), train)


def ours(currents: np.ndarray, du: int | None, dv: int, vth: int) -> Trace:
    """The emulator's step on currents (steps, neurons) in weight units."""
    one = np.ones(1, np.int32)
    state = prepare(FixedNeuron(dv, vth * one, 0 * one, 0, du=du))
    membrane, found = state.start(torch.zeros(currents.shape[1:])), []
    for a in torch.from_numpy(currents.astype(np.float32)):
        s, membrane, _ = state.step(a, membrane)
        found.append([SUB_UNITS * a if membrane.u is None else membrane.u, membrane.v, s])
    return Trace(*(torch.stack(x).numpy().astype(np.int64) for x in zip(*found, strict=True)))
