"""Reading and writing .nir files: errors in one line, atomic, deterministic."""

from __future__ import annotations

import os
from pathlib import Path

import nir

import mksgn.export.nodes  # noqa: F401  registers GraphConv and SpikingSelfAttention
from mksgn.train.errors import BadInputError


def write(graph: nir.NIRGraph, path: Path) -> None:
    temporary = path.with_name(path.name + ".part")
    nir.write(temporary, graph)
    os.replace(temporary, path)


def read(path: Path) -> nir.NIRGraph:
    """Read with full type checks, but for the portable profile, whose Linear nodes on the last axis nir cannot type (NIR.md).

    Raises BadInputError, one line, for a file that is missing, truncated, or no NIR graph.
    """
    if not path.is_file():
        raise BadInputError(f"{path}: no such file; make one with mksgn-export model.pt --to nir")
    try:
        graph = nir.read(path, type_check=False)
        if isinstance(graph, nir.NIRGraph) and graph.metadata.get("profile") != "portable":
            graph.infer_types()
            graph.check_types()
    except AssertionError as error:  # nir names no reason for a node type that it does not know
        raise BadInputError(
            f"{path}: holds a node that nir {nir.version} and mksgn do not know; export it with primitives of NIR"
        ) from error
    except Exception as error:  # h5py, KeyError, ValueError, … according to where the damage sits
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise BadInputError(f"{path}: no readable NIR file ({reason}); it may be truncated: export it again") from error
    if not isinstance(graph, nir.NIRGraph):
        raise BadInputError(f"{path}: holds a single {type(graph).__name__}, not a graph; wrap it in a NIRGraph")
    return graph
