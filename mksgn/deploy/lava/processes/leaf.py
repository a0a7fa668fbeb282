"""The two leaf Processes of a network: a source of host spikes, and a population fused with the projections that lead to it.

Nothing else may live in this folder: Lava finds ProcessModels by executing every file of it as a top-level module (LAVA.md).

A leaf sends the spikes of its previous step before it receives, as Lava's own synapses do: each projection costs one time
step, all leaves work at once, and no loop can lock up. A message is (slots, values): several clips run side by side as slots,
which spreads its cost. Spikes travel as bytes; the values of a float program as float32.
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

MAX_SOURCES = 16


class Source(AbstractProcess):
    """Sends what is there already: `frames.frame(step)` is the message of a step, of `shape`."""

    def __init__(self, *, frames, shape: tuple[int, int], name: str) -> None:
        super().__init__(frames=frames, name=name)
        self.s_out = OutPort(shape=shape)


class AbstractPySourceModel(PyLoihiProcessModel):
    def __init__(self, proc_params) -> None:
        super().__init__(proc_params)
        torch.set_num_threads(1)  # see the leaf's
        self.frames = proc_params["frames"]

    def run_spk(self) -> None:
        # like any population, it sends at time step n what it did at n - 1: its step 0 leaves at time step 2 (the first is 1)
        self.s_out.send(self.frames.frame(self.time_step - 2))


@implements(proc=Source, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySourceModelFixed(AbstractPySourceModel):
    """Spikes."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.uint8)


@implements(proc=Source, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PySourceModelFloat(AbstractPySourceModel):
    """Spikes or currents."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float32)


class Leaf(AbstractProcess):
    """A population, or those of a loop. `work` (mksgn/deploy/lava/leaf_work) computes a step; `sources` are the shapes of what it receives."""

    def __init__(self, *, work, sources: list[tuple[int, int]], shape: tuple[int, int], name: str) -> None:
        super().__init__(work=work, name=name)
        for i in range(MAX_SOURCES):
            setattr(self, f"in_{i}", InPort(shape=sources[i] if i < len(sources) else (1,)))
        self.s_out = OutPort(shape=shape)

    @property
    def ports(self) -> list[InPort]:
        return [getattr(self, f"in_{i}") for i in range(MAX_SOURCES)]


class AbstractPyLeafModel(PyLoihiProcessModel):
    """Receive, compute, remember what to send at the next step. The arithmetic comes with the program: see mksgn/deploy/program/neurons."""

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
        self.s_out.send(self.work.message)
        ports = (getattr(self, f"in_{i}") for i in range(len(self.work.sources)))
        self.work.step(self.time_step - 1, [port.recv() for port in ports])


def _with_ports(dtype):
    """Lava looks for a type of each port in the model's class."""

    def declare(model: type) -> type:
        for i in range(MAX_SOURCES):
            setattr(model, f"in_{i}", LavaPyType(PyInPort.VEC_DENSE, dtype))
        setattr(model, "s_out", LavaPyType(PyOutPort.VEC_DENSE, dtype))  # noqa: B010  (as mypy sees it)
        return model

    return declare


@implements(proc=Leaf, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
@_with_ports(np.uint8)
class PyLeafModelFixed(AbstractPyLeafModel):
    """Loihi's integers: 8-bit weights, 24-bit membrane, truncating decay."""

    precision = "fixed"


@implements(proc=Leaf, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
@_with_ports(np.float32)
class PyLeafModelFloat(AbstractPyLeafModel):
    """float32 throughout."""

    precision = "float"
