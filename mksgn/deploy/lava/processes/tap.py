"""A leaf Process that notes what reaches it, for networks of stock Processes: their own Monitors take 10 µs per value (LAVA.md).

Nothing but Processes may live in this folder: see leaf.py.
"""

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


class Tap(AbstractProcess):
    """Writes what it receives, from time step `first` (counted from 0) on, into `frames` (time steps, *shape).

    `frames` lies in memory that parent and children share. Several senders add up.
    """

    def __init__(self, *, frames: np.ndarray, first: int, name: str) -> None:
        super().__init__(frames=frames, first=first, name=name)
        self.s_in = InPort(shape=frames.shape[1:])


class AbstractPyTapModel(PyLoihiProcessModel):
    def __init__(self, proc_params) -> None:
        super().__init__(proc_params)
        self.frames, self.first = proc_params["frames"], proc_params["first"]

    def run_spk(self) -> None:
        received = self.s_in.recv()
        index = self.time_step - 1 - self.first
        if 0 <= index < len(self.frames):
            self.frames[index] = received


@implements(proc=Tap, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyTapModelFixed(AbstractPyTapModel):
    """Spikes, and sums of weights."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)


@implements(proc=Tap, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PyTapModelFloat(AbstractPyTapModel):
    """Spikes, and sums of weights."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, float)
