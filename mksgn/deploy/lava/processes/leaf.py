"""The two Processes of a fused network: a source of host values, and a leaf, which runs an execution group.

Only Processes and their models may live in this folder: Lava finds ProcessModels by executing every
file in it as a top-level module (LAVA.md).

A leaf sends the spikes of its previous step before it receives, as Lava's own synapses do: each
projection costs one time step, all leaves work at once, and no loop can deadlock. A message is
(slots, values): several samples run side by side in slots, which spreads its cost. Spikes travel as
bytes; the values of a float program as float32.
"""

from typing import Any

import numpy as np
import torch
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess

from mksgn.deploy.lava.leaf_work import LeafPlan, LeafWorker
from mksgn.deploy.lava.process_models import process_model
from mksgn.deploy.lava.sources import Frames

MAX_SOURCES = 16


class Source(AbstractProcess):
    """Sends values that the host has computed: `frames.frame(step)` is the message of a step, of `shape`."""

    def __init__(self, *, frames: Frames, shape: tuple[int, int], name: str) -> None:
        super().__init__(frames=frames, name=name)
        self.s_out = OutPort(shape=shape)


class AbstractPySourceModel(PyLoihiProcessModel):
    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        torch.set_num_threads(1)  # for the reason given in the leaf's model
        self.frames = proc_params["frames"]

    def run_spk(self) -> None:
        # Like any population, it sends at time step n what it did at n - 1: its step 0 leaves at
        # time step 2 (the first is 1).
        self.s_out.send(self.frames.frame(self.time_step - 2))


@process_model(Source, "fixed", s_out=LavaPyType(PyOutPort.VEC_DENSE, np.uint8))
class PySourceModelFixed(AbstractPySourceModel):
    """Sends spikes."""


@process_model(Source, "float", s_out=LavaPyType(PyOutPort.VEC_DENSE, np.float32))
class PySourceModelFloat(AbstractPySourceModel):
    """Sends spikes or currents."""


class Leaf(AbstractProcess):
    """Runs an execution group according to a plan."""

    def __init__(self, *, plan: LeafPlan, name: str) -> None:
        super().__init__(plan=plan, name=name)
        shapes = [layout.shape for layout in plan.sources]
        for i in range(MAX_SOURCES):
            setattr(self, f"in_{i}", InPort(shape=shapes[i] if i < len(shapes) else (1,)))
        self.s_out = OutPort(shape=plan.sends.shape)

    @property
    def ports(self) -> list[InPort]:
        return [getattr(self, f"in_{i}") for i in range(MAX_SOURCES)]


class AbstractPyLeafModel(PyLoihiProcessModel):
    """Sends the message of the previous step, receives, and computes."""

    precision: str  # of the program that the model runs; set by its decorator

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        # The parent's torch threads do not survive the fork: waiting for them would hang (LAVA.md).
        torch.set_num_threads(1)
        plan = proc_params["plan"]
        if plan.program.precision != self.precision:
            raise TypeError(
                f"a {plan.program.precision}-point population in a {self.precision}-point model; select the other tag"
            )
        self.worker = LeafWorker(plan)

    def run_spk(self) -> None:
        self.s_out.send(self.worker.message)
        ports = (getattr(self, f"in_{i}") for i in range(len(self.worker.buffers)))
        self.worker.step(self.time_step - 1, [port.recv() for port in ports])


def _leaf_ports(dtype: type) -> dict[str, LavaPyType]:
    inputs = {f"in_{i}": LavaPyType(PyInPort.VEC_DENSE, dtype) for i in range(MAX_SOURCES)}
    return inputs | {"s_out": LavaPyType(PyOutPort.VEC_DENSE, dtype)}


@process_model(Leaf, "fixed", **_leaf_ports(np.uint8))
class PyLeafModelFixed(AbstractPyLeafModel):
    """Loihi's integers: 8-bit weights, 24-bit membrane potential, truncating decay."""


@process_model(Leaf, "float", **_leaf_ports(np.float32))
class PyLeafModelFloat(AbstractPyLeafModel):
    """float32 throughout."""
