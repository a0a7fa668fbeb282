"""A chain of small Processes that can be made to fail. Lava executes every file of this folder: add none."""

import ctypes
import mmap
import os
import signal
import sys
import time
from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

SHAPE = (3,)


class CannotPickleError(Exception):
    """An error that does not survive pickling, like many with their own constructor."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}\nsecond line")


class Source(AbstractProcess):
    """Sends ones."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.out = OutPort(SHAPE)


class Relay(AbstractProcess):
    """Forwards and sums what it receives; `fault` is how it fails, and `at` the time step in which it does."""

    def __init__(self, fault: str = "", at: int = 2, **params: Any) -> None:
        clock = np.frombuffer(mmap.mmap(-1, 8), np.float64)  # shared with the model, which writes when it fails
        super().__init__(fault=fault, at=at, clock=clock, **params)
        self.inp, self.out = InPort(SHAPE), OutPort(SHAPE)
        self.total = Var(SHAPE, init=0)


class Sink(AbstractProcess):
    """Sums what it receives."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.inp = InPort(SHAPE)
        self.total = Var(SHAPE, init=0)


class UnprintableError(Exception):
    """An error whose str() fails."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def recurse() -> None:
    recurse()


def fail(fault: str, clock: np.ndarray) -> None:
    """Fail as `fault` says, and note the time in `clock`."""
    clock[0] = time.monotonic()
    if fault == "raise":
        raise ValueError("the weights are bad")
    if fault == "unpicklable":
        raise CannotPickleError("first", "line")
    if fault == "unprintable":
        raise UnprintableError
    if fault == "long":
        raise ValueError("long " * 2_000_000)
    if fault == "memory":
        np.zeros(1 << 60, np.int8)
    if fault == "recursion":
        recurse()
    if fault == "interrupt":
        raise KeyboardInterrupt
    if fault == "sys.exit":
        sys.exit(3)
    if fault == "sys.exit(0)":
        sys.exit(0)
    if fault == "os._exit":
        os._exit(7)
    if fault == "os._exit(0)":
        os._exit(0)
    if fault == "segfault":
        ctypes.string_at(0)
    if fault == "abort":
        os.abort()
    if fault in ("SIGKILL", "SIGTERM", "SIGSTOP"):
        os.kill(os.getpid(), signal.Signals[fault])
    if fault == "close":  # every descriptor, so that nothing can be reported
        os.closerange(3, 1000)
        raise ValueError("unheard")
    if fault == "pause":
        time.sleep(0.5)
    while fault == "loop":
        pass
    while fault == "sleep":
        time.sleep(1)


@implements(proc=Source, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PySource(PyLoihiProcessModel):
    out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int8)

    def run_spk(self) -> None:
        self.out.send(np.ones(SHAPE, np.int8))


@implements(proc=Relay, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PyRelay(PyLoihiProcessModel):
    inp: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int8)
    out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int8)
    total: np.ndarray = LavaPyType(np.ndarray, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.when, _, self.fault = str(proc_params["fault"]).rpartition(":")
        self.at, self.clock = int(proc_params["at"]), proc_params["clock"]
        if self.when == "constructor":
            fail(self.fault, self.clock)

    def run_spk(self) -> None:
        spikes = self.inp.recv()
        due = self.time_step == self.at
        if due and self.when == "before":
            fail(self.fault, self.clock)
        while due and self.fault == "chatter":  # to the sink, which goes on listening to what is negative
            self.clock[0] = self.clock[0] or time.monotonic()
            self.out.send(-spikes)
            time.sleep(0.01)
        if due and self.when == "silent":
            return
        if due and self.when == "twice":
            self.inp.recv()
        self.out.send(spikes)
        self.total += spikes
        if due and self.when == "after":
            fail(self.fault, self.clock)

    def _stop(self) -> None:
        if self.when == "stop":
            fail(self.fault, self.clock)
        super()._stop()


@implements(proc=Sink, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PySink(PyLoihiProcessModel):
    inp: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int8)
    total: np.ndarray = LavaPyType(np.ndarray, np.int32)

    def run_spk(self) -> None:
        while (spikes := self.inp.recv()).min() < 0:
            pass
        self.total += spikes


def chain(fault: str = "", at: int = 2) -> tuple[Source, Relay, Sink]:
    """source → relay → sink, with the fault in the relay."""
    source, relay, sink = Source(name="source"), Relay(fault, at, name="relay"), Sink(name="sink")
    source.out.connect(relay.inp)
    relay.out.connect(sink.inp)
    return source, relay, sink
