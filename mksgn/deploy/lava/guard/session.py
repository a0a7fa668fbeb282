"""Lava's Runtime from building to destroying, with the guard's channels and children, and with guarded waits."""

import os
import threading
from collections.abc import Callable
from typing import IO, Any

from mksgn.deploy.lava.guard.channels import ForkedChannel, Memory
from mksgn.deploy.lava.guard.children import Child
from mksgn.deploy.lava.guard.errors import LavaDeadlineError, LavaRuntimeError
from mksgn.deploy.lava.guard.os_signals import signals_held
from mksgn.deploy.lava.guard.watch import GRACE_S, Watch

# After start_method, which the imports above have run.
# isort: split
from lava.magma.compiler.channels.interfaces import ChannelType
from lava.magma.core.process.message_interface_enum import ActorType
from lava.magma.core.process.process import AbstractProcess, ProcessServer
from lava.magma.core.process.variable import VarServer
from lava.magma.core.run_conditions import RunSteps
from lava.magma.runtime.message_infrastructure.multiprocessing import MultiProcessing
from lava.magma.runtime.mgmt_token_enums import MGMT_COMMAND, MGMT_RESPONSE, enum_equal, enum_to_np
from lava.magma.runtime.runtime import Runtime
from lava.magma.runtime.runtime_services.runtime_service import AsyncPyRuntimeService

STOP_S = 2.0  # how long children may take to end when asked; then they are killed


class _Infrastructure(MultiProcessing):
    """Lava's message infrastructure with the guard's memory, channels and children."""

    def __init__(self, labels: dict[int, str], children: list[Child], dump: IO[bytes]) -> None:
        super().__init__()
        self._labels, self._actors, self._dump = labels, children, dump

    def start(self) -> None:
        self._smm = Memory()

    def channel_class(self, channel_type: ChannelType) -> Any:
        return ForkedChannel if channel_type == ChannelType.PyPy else super().channel_class(channel_type)

    def build_actor(self, target_fn: Any, builder: Any, exception_q: Any = None) -> Child:
        """Fork one child. Lava's target and queue are not used: they report too little, too late."""
        label = self._labels.get(id(builder))
        with signals_held():
            child = Child(label or f"Lava's {builder.rs_class.__name__}", label is None, builder, self._dump)
            self._actors.append(child)
            child.start()
        return child


class LavaSession(Runtime):
    """Lava's Runtime with guarded waits. Var.get and Process.stop, which bypass GuardedRuntime, call it too."""

    def __init__(self, executable: Any, deadline_s: float) -> None:
        super().__init__(executable, ActorType.MultiProcessing)
        self._owner, self._destroying, self._destroyed = os.getpid(), threading.RLock(), False
        self.watch = Watch(deadline_s)
        self.steps = 0

    def __del__(self) -> None:
        """Do nothing: Lava's destructor waits for children that may be gone. GuardedRuntime's finaliser kills them."""

    @property
    def children(self) -> list[Child]:
        return self.watch.children

    def _build_message_infrastructure(self) -> None:
        builders = self._executable.proc_builders
        labels = {id(builders[it]): f"Lava Process {it.name!r} ({type(it).__name__})" for it in builders}
        self._messaging_infrastructure = _Infrastructure(labels, self.children, self.watch.dump)
        self._messaging_infrastructure.start()

    def _create_external_channels(self, proc: AbstractProcess, proc_builder: Any) -> None:
        """Create Lava's own channels, and close their ports later: Lava forgets them (in Injector and Extractor)."""
        super()._create_external_channels(proc, proc_builder)
        for port in (getattr(proc, name) for name in proc_builder.py_ports):
            for name in ("external_pipe_csp_send_port", "external_pipe_csp_recv_port"):
                if hasattr(port, name):
                    self._open_ports.append(getattr(port, name))

    def initialize(self, node_cfg_idx: int = 0) -> None:
        """Take the steps of Lava's method except for its wait, which never ends if a child dies early."""
        try:
            self._build_watchdog_manager()
            self._build_message_infrastructure()
            self._build_channels()
            self._build_sync_channels()
            self._build_processes()
            self._build_runtime_services()
            self.exception_q.clear()  # unused, two descriptors each
            self._start_ports()
            self._wait(lambda seconds: self.watch.poll_reports(lambda child: child.ready, seconds))
            self._is_initialized = True
        except BaseException:
            self.destroy()
            raise

    def _start_ports(self) -> None:
        """Put a guarded wait in front of the calls of Lava's ports that could block."""
        super()._start_ports()

        def guarded(port: Any, call: Callable[..., Any]) -> Callable[..., Any]:
            def waiting(*args: Any) -> Any:
                self._wait(port.wait)  # after which the call does not block
                return call(*args)

            return waiting

        for port in self.runtime_to_service:
            port.send = guarded(port, port.send)
        for port in self.service_to_runtime:
            port.recv = guarded(port, port.recv)

    def _wait(self, arrived: Callable[[float], bool], patience_s: float | None = None) -> None:
        """Call Watch.wait; clean up and raise on a failure, a deadline or a signal."""
        try:
            self.watch.wait(arrived, patience_s)
        except BaseException as error:
            stopped_elsewhere = self._destroyed
            self.destroy()
            if stopped_elsewhere and isinstance(error, Exception):
                raise LavaRuntimeError("Lava's runtime was stopped by another thread while this one waited") from error
            raise

    def start(self, run_condition: Any) -> None:
        """Run the steps of the condition and wait for their end."""
        if not self._is_initialized:
            raise LavaRuntimeError("Lava's runtime has stopped: make a new GuardedRuntime")
        if not isinstance(run_condition, RunSteps):
            raise LavaRuntimeError(f"a GuardedRuntime supports RunSteps only, not {type(run_condition).__name__}")
        steps = run_condition.num_steps
        try:
            self._is_started = self._is_running = True
            self.watch.limit_to(steps)
            services = self._executable.runtime_service_builders.values()
            for port, service in zip(self.runtime_to_service, services, strict=True):  # Lava's order, as in set_var
                # Models converted to Lava's async protocol count from their first step, not from
                # the last run.
                from_first = issubclass(service.rs_class, AsyncPyRuntimeService)
                port.send(enum_to_np(self.steps + steps if from_first else steps))
            for port in self.service_to_runtime:
                answer = port.recv()
                if not enum_equal(answer, MGMT_RESPONSE.DONE):
                    text = f"Lava's runtime service aborted, with the answer {int(answer[0])}"
                    self.watch.suspect(LavaRuntimeError(text))
                    self._wait(lambda seconds: self.watch.poll_reports(lambda _: False, seconds))  # for the cause
            self.watch.limit_to(None)
            self._is_running = False
            self.steps += steps
        except BaseException:
            self.destroy()
            raise

    def stop(self) -> None:
        """Ask idle children to end, so that they flush their output; kill those that remain."""
        try:
            if self._is_initialized and not self._is_running and os.getpid() == self._owner:
                self.watch.stopping = True
                for port in self.runtime_to_service:
                    port.send(MGMT_COMMAND.STOP)
                self._wait(lambda seconds: self.watch.poll_reports(lambda c: c.closed or c.ended(), seconds), STOP_S)
                self.watch.raise_failure()
        except LavaDeadlineError:
            pass
        finally:
            self.destroy()

    def destroy(self) -> None:
        """Kill every child and release everything. Safe at any time, repeatedly, at exit and in forked processes."""
        if os.getpid() != self._owner:
            return
        with signals_held(), self._destroying:
            if self._destroyed:
                return
            self._is_initialized = self._is_started = self._is_running = False
            self._destroyed = True
            for child in self.children:
                if child.pid:
                    child.kill()
            for child in self.children:
                child.reap()
            self.watch.close()
            for port in self._open_ports:
                port.join()
                if port.thread and port.thread.ident:  # Lava's own ports
                    port.thread.join(GRACE_S)
                    port._array = []
            self._open_ports.clear()
            if self._messaging_infrastructure and self._messaging_infrastructure.smm:
                self._messaging_infrastructure.smm.release()
            self.exception_q.clear()
            forget(self._executable.process_list)


def forget(processes: list[AbstractProcess]) -> None:
    """Remove a network from Lava's lists of all Processes and Vars ever made, so that it can be collected.

    Lava only ever reads the lengths of these lists.
    """
    removed = set(map(id, processes))
    process_server, var_server = ProcessServer(), VarServer()
    process_server.processes = [process for process in process_server.processes if id(process) not in removed]
    var_server.vars = [variable for variable in var_server.vars if id(variable.process) not in removed]
