"""Other projects' simulators, which read the file with their own importers.

They read stock primitives only, so a structured graph is passed to them in its portable form.
Spikes are taken, by forward hooks, from the modules that an importer made from our populations.
"""

import contextlib
import importlib
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor

from mksgn.common.errors import first_line
from mksgn.export.choices import SIMULATORS
from mksgn.export.errors import ExportError, MissingToolError
from mksgn.export.lowering.portable import to_portable
from mksgn.export.lowering.portable_attention import structured_spikes

Spikes = dict[str, np.ndarray]
MODULES = {
    "spikingjelly": "spikingjelly.activation_based.nir_exchange",
    "snntorch": "snntorch.import_nir",
    "norse": "norse.torch",
    "onnxruntime": "onnxruntime",
}
SNNTORCH_DT = 1e-4  # seconds; a constant in its importer


def check(names: tuple[str, ...]) -> None:
    """Check that all named simulators can be used.

    Raises:
        ExportError: A name is unknown.
        MissingToolError: A simulator cannot be imported.
    """
    for name in names:
        _check_known(name)
        _import(name)


def _check_known(name: str) -> None:
    if name not in SIMULATORS:
        raise ExportError(f"--against {name}: unknown simulator; choose from {', '.join(SIMULATORS)}")


def spikes(
    simulator: str,
    graph: nir.NIRGraph,
    inputs: np.ndarray,
    steps: int,
    dt: float,
    batch: int = 16,
    *,
    onnx: Path | None = None,
) -> Spikes:
    """Run a graph in a simulator, with all state starting at 0.

    Args:
        simulator: One of SIMULATORS's names.
        graph: The network, in either profile.
        inputs: (L, *input shape), constant over the steps.
        steps: Number of time steps S.
        dt: Time step in seconds.
        batch: Samples at a time.
        onnx: The graph's ONNX file, if written: onnxruntime then runs that file.

    Returns:
        (L, S, *shape) bool of each population.

    Raises:
        MissingToolError: The simulator is not installed.
        NotPortableError: The graph's attention is too large for stock primitives, all that the simulator reads.
        ExportError: The simulator's importer refuses the graph, or the simulator fails to run it.
    """
    _check_known(simulator)
    if simulator == "onnxruntime":
        from mksgn.export.onnx import file as onnx_file

        return onnx_file.execute(onnx or onnx_file.from_nir(graph, steps=steps, dt=dt), inputs)[0]
    structured = None if graph.metadata.get("profile") == "portable" else graph
    if structured:
        graph = to_portable(graph)
    network = IMPORTERS[simulator](graph, dt)
    populations = [name for name, node in graph.nodes.items() if isinstance(node, nir.LIF)]
    try:
        parts = [_run(network(), populations, inputs[i : i + batch], steps) for i in range(0, len(inputs), batch)]
    except ExportError:
        raise
    except Exception as error:  # another project's code may raise anything
        raise ExportError(f"{simulator} cannot run the file: {first_line(error)}") from error
    spikes = {name: np.concatenate([part[name] for part in parts]) for name in populations}
    return structured_spikes(structured, spikes) if structured else spikes


@torch.no_grad()
def _run(network: torch.nn.Module, populations: list[str], inputs: np.ndarray, steps: int) -> Spikes:
    """Run one batch step by step.

    A simulator returns its state as a second output, or keeps it inside its modules.
    """
    modules = dict(network.named_modules())
    steps_of: dict[str, list[Tensor]] = {name: [] for name in populations}
    hooks = []
    for name in populations:

        def keep(module: torch.nn.Module, arguments: object, output: Any, name: str = name) -> None:
            steps_of[name].append((output[0] if isinstance(output, tuple) else output).bool())

        hooks.append(modules[name].register_forward_hook(keep))
    x, state = torch.from_numpy(np.ascontiguousarray(inputs, dtype=np.float32)), None
    for _ in range(steps):
        output = network(x, state)
        state = output[1] if isinstance(output, tuple) else None
    for hook in hooks:
        hook.remove()
    return {name: torch.stack(per_step, 1).numpy() for name, per_step in steps_of.items()}


def _spikingjelly(graph: nir.NIRGraph, dt: float) -> Callable[[], torch.nn.Module]:
    exchange = _import("spikingjelly")
    return _once(lambda: exchange.import_from_nir(graph, dt=dt))


def _snntorch(graph: nir.NIRGraph, dt: float) -> Callable[[], torch.nn.Module]:
    if not np.isclose(dt, SNNTORCH_DT):
        raise ExportError(
            f"snntorch reads every file with dt = {SNNTORCH_DT} s, this one has {dt} s; use --dt {SNNTORCH_DT}"
        )
    importer = _import("snntorch")
    utils = importlib.import_module("snntorch.utils")
    build = _once(lambda: importer.import_from_nir(graph))

    def network() -> torch.nn.Module:
        network = build()
        utils.reset(network)  # its neurons keep their state between calls
        return network

    return network


def _norse(graph: nir.NIRGraph, dt: float) -> Callable[[], torch.nn.Module]:
    norse = _import("norse")
    return _once(lambda: norse.from_nir(graph, dt=dt))


IMPORTERS: dict[str, Callable[[nir.NIRGraph, float], Callable[[], torch.nn.Module]]] = {
    "spikingjelly": _spikingjelly,
    "snntorch": _snntorch,
    "norse": _norse,
}


def _once(build: Callable[[], Any]) -> Callable[[], torch.nn.Module]:
    """Delay `build` to the first call and discard what it prints (snnTorch prints whole arrays)."""

    @cache
    def network() -> torch.nn.Module:
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                return build().eval()
            except Exception as error:  # another project's code may raise anything
                raise ExportError(f"the simulator's importer refuses the file: {first_line(error)}") from error

    return network


def _import(simulator: str) -> ModuleType:
    try:
        return importlib.import_module(MODULES[simulator])
    except ImportError as error:
        raise MissingToolError(
            f"--against {simulator}: it cannot be imported here ({error}); {SIMULATORS[simulator]}"
        ) from error
