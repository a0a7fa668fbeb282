"""The two leaf Processes of a network: a source of host spikes, and a population fused with the projections that lead to it.

Nothing else may live in this folder: Lava finds ProcessModels by executing every file of it as a top-level module (LAVA.md).

A leaf sends the spikes of its previous step before it receives, as Lava's own synapses do: each projection costs one time
step, all leaves work at once, and no loop can lock up. Spikes travel as int8, (lanes, *shape); several clips run side by side
as lanes, which spreads the cost of a message.
"""

import numpy as np
import torch
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

MAX_SOURCES = 4


class Source(AbstractProcess):
    """Sends spikes that are there already. `frames` (time steps, lanes, *shape), any integer or boolean type."""

    def __init__(self, *, frames: np.ndarray, name: str) -> None:
        super().__init__(frames=frames, name=name)
        self.s_out = OutPort(shape=frames.shape[1:])


@implements(proc=Source, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt", "floating_pt")
class PySourceModel(PyLoihiProcessModel):
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int8)

    def __init__(self, proc_params) -> None:
        super().__init__(proc_params)
        self.frames = proc_params["frames"]
        self.silence = np.zeros(self.frames.shape[1:], dtype=np.int8)

    def run_spk(self) -> None:
        # like any population, it sends at time step n what it did at n - 1: its step 0 leaves at time step 2 (the first is 1)
        step = self.time_step - 2
        inside = 0 <= step < len(self.frames)
        self.s_out.send(self.frames[step].astype(np.int8) if inside else self.silence)


class Leaf(AbstractProcess):
    """One population. `work` (deploy/lava/network) computes a step; `sources` are the (lanes, *shape) of what it receives."""

    def __init__(self, *, work, sources: list[tuple[int, ...]], shape: tuple[int, ...], name: str) -> None:
        super().__init__(work=work, name=name)
        shapes = [*sources, *[(1,)] * (MAX_SOURCES - len(sources))]
        self.in_0, self.in_1, self.in_2, self.in_3 = (InPort(shape=s) for s in shapes)
        self.s_out = OutPort(shape=shape)

    @property
    def ports(self) -> tuple[InPort, ...]:
        return self.in_0, self.in_1, self.in_2, self.in_3


class AbstractPyLeafModel(PyLoihiProcessModel):
    """Receive, compute, remember what to send at the next step. The arithmetic comes with the program: see deploy/arithmetic."""

    in_0: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int8)
    in_1: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int8)
    in_2: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int8)
    in_3: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int8)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int8)

    precision = ""

    def __init__(self, proc_params) -> None:
        super().__init__(proc_params)
        # the parent's torch threads do not survive the fork: waiting for them would hang (LAVA.md)
        torch.set_num_threads(1)
        self.work = proc_params["work"]
        if self.work.precision != self.precision:
            raise TypeError(
                f"a {self.work.precision}-point population in a {self.precision}-point model; select the other tag"
            )
        self.work.start()

    def run_spk(self) -> None:
        self.s_out.send(self.work.spikes)
        ports = (self.in_0, self.in_1, self.in_2, self.in_3)
        self.work.step(self.time_step - 1, [port.recv() for port in ports[: self.work.n_sources]])


@implements(proc=Leaf, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyLeafModelFixed(AbstractPyLeafModel):
    """Loihi's integers: 8-bit weights, 24-bit membrane, truncating decay."""

    precision = "fixed"


@implements(proc=Leaf, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PyLeafModelFloat(AbstractPyLeafModel):
    """float32 throughout."""

    precision = "float"
