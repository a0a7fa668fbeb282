"""A Process that records what stock Processes send to it: Lava's Monitors take 10 µs per value (LAVA.md).

Only Processes and their models may live in this folder: see leaf.py.
"""

from typing import Any

import numpy as np
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort
from lava.magma.core.process.process import AbstractProcess

from mksgn.deploy.lava.process_models import process_model


class Tap(AbstractProcess):
    """Writes what it receives, from time step `first` (counted from 0) on, into `frames` (time steps, *shape).

    `frames` lies in memory that parent and children share. Several senders add up.
    """

    def __init__(self, *, frames: np.ndarray, first: int, name: str) -> None:
        super().__init__(frames=frames, first=first, name=name)
        self.s_in = InPort(shape=frames.shape[1:])


class AbstractPyTapModel(PyLoihiProcessModel):
    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.frames, self.first = proc_params["frames"], proc_params["first"]

    def run_spk(self) -> None:
        received = self.s_in.recv()
        index = self.time_step - 1 - self.first
        if 0 <= index < len(self.frames):
            self.frames[index] = received


@process_model(Tap, "fixed", s_in=LavaPyType(PyInPort.VEC_DENSE, np.int32))
class PyTapModelFixed(AbstractPyTapModel):
    """Receives spikes and sums of integer weights."""


@process_model(Tap, "float", s_in=LavaPyType(PyInPort.VEC_DENSE, float))
class PyTapModelFloat(AbstractPyTapModel):
    """Receives spikes and sums of float weights."""
