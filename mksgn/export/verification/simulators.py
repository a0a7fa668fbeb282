"""Other people's simulators, each running our file by its own importer: what `--against` compares with.

They read stock primitives only, so a structured graph goes to them in its portable form. Spikes are taken from the modules that they
made of our populations; nothing else of theirs is touched.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor

from mksgn.common.errors import first_line
from mksgn.export.errors import ExportError, MissingToolError
from mksgn.export.lowering.portable import to_portable

Spikes = dict[str, np.ndarray]
REMEDY = {
    "spikingjelly": "needs Python 3.11 or later: pip install 'spikingjelly>=2'",
    "snntorch": "pip install snntorch nirtorch",
    "norse": "pip install norse",
    "onnxruntime": "pip install 'mksgn[onnx]'",
}
MODULES = {
    "spikingjelly": "spikingjelly.activation_based.nir_exchange",
    "snntorch": "snntorch.import_nir",
    "norse": "norse.torch",
    "onnxruntime": "onnxruntime",
}
SNNTORCH_DT = 1e-4  # seconds, a constant of its importer


def check(names: tuple[str, ...]) -> None:
    """Raises ExportError for a name that is none, MissingToolError for a simulator that cannot be imported."""
    for name in names:
        _check_known(name)
        _import(name)


def _check_known(name: str) -> None:
    if name not in REMEDY:
        raise ExportError(f"--against {name}: not known; choose of {', '.join(REMEDY)}")


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
    """(L, S, *shape) bool of each population, for one constant input per sample (L, *input shape), all state starting at 0.

    `onnx` is the graph's own ONNX file, if it has been written: then onnxruntime runs that.
    Raises MissingToolError where the simulator is not installed, NotPortableError for attention in one that reads stock primitives
    only, ExportError for what its importer refuses.
    """
    _check_known(simulator)
    if simulator == "onnxruntime":
        from mksgn.export.onnx import file as onnx_file

        return onnx_file.execute(onnx or onnx_file.from_nir(graph, steps=steps, dt=dt), inputs)[0]
    if graph.metadata.get("profile") != "portable":
        graph = to_portable(graph)
    network = IMPORTERS[simulator](graph, dt)
    populations = [name for name, node in graph.nodes.items() if isinstance(node, nir.LIF)]
    try:
        parts = [_run(network(), populations, inputs[i : i + batch], steps) for i in range(0, len(inputs), batch)]
    except ExportError:
        raise
    except Exception as error:  # whatever another project's code raises on our file
        raise ExportError(f"{simulator} cannot run the file: {first_line(error)}") from error
    return {name: np.concatenate([part[name] for part in parts]) for name in populations}


@torch.no_grad()
def _run(network: torch.nn.Module, populations: list[str], inputs: np.ndarray, steps: int) -> Spikes:
    """Step by step; each simulator hands its state on in its own way, as a second output or inside its modules."""
    modules = dict(network.named_modules())
    found: dict[str, list[Tensor]] = {name: [] for name in populations}
    hooks = []
    for name in populations:

        def keep(module, arguments, output, name=name):
            found[name].append((output[0] if isinstance(output, tuple) else output).bool())

        hooks.append(modules[name].register_forward_hook(keep))
    x, state = torch.from_numpy(np.ascontiguousarray(inputs, dtype=np.float32)), None
    for _ in range(steps):
        output = network(x, state)
        state = output[1] if isinstance(output, tuple) else None
    for hook in hooks:
        hook.remove()
    return {name: torch.stack(per_step, 1).numpy() for name, per_step in found.items()}


def _spikingjelly(graph: nir.NIRGraph, dt: float) -> Callable[[], torch.nn.Module]:
    exchange = _import("spikingjelly")
    return _once(lambda: exchange.import_from_nir(graph, dt=dt))


def _snntorch(graph: nir.NIRGraph, dt: float) -> Callable[[], torch.nn.Module]:
    if not np.isclose(dt, SNNTORCH_DT):
        raise ExportError(f"snntorch reads every file with dt = {SNNTORCH_DT} s, this one has {dt} s; use --dt 1e-4")
    importer = _import("snntorch")
    utils = importlib.import_module("snntorch.utils")
    build = _once(lambda: importer.import_from_nir(graph))

    def network() -> torch.nn.Module:
        network = build()
        utils.reset(network)  # its neurons keep their state
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
    """Built at the first call, its prints swallowed (snnTorch shows whole arrays)."""
    built: list[torch.nn.Module] = []

    def network() -> torch.nn.Module:
        if not built:
            with contextlib.redirect_stdout(io.StringIO()):
                try:
                    built.append(build().eval())
                except Exception as error:  # as above
                    raise ExportError(f"the simulator's importer refuses the file: {first_line(error)}") from error
        return built[0]

    return network


def _import(simulator: str) -> ModuleType:
    try:
        return importlib.import_module(MODULES[simulator])
    except ImportError as error:
        raise MissingToolError(
            f"--against {simulator}: it cannot be imported here ({error}); {REMEDY[simulator]}"
        ) from error
