"""Reading and writing .nir files: errors in one line, atomic, deterministic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nir

import mksgn.export.nodes  # noqa: F401  registers GraphConv and SpikingSelfAttention
from mksgn.train.atomic import replacing
from mksgn.train.errors import BadInputError, first_line


def write(graph: nir.NIRGraph, path: Path) -> None:
    put(path, lambda temporary: nir.write(temporary, graph))


def put(path: Path, write: Callable[[Path], object]) -> None:
    """`write` a file that will be at `path`, whole, its folder made if need be.

    Raises BadInputError for a place that no file can be put in.
    """
    if path.is_dir():
        raise BadInputError(f"{path}: is a directory; name a file in it with -o")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            write(temporary)
    except OSError as error:
        raise BadInputError(
            f"{path}: cannot be written ({error.strerror or error}); choose another place with -o"
        ) from error


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
        raise BadInputError(
            f"{path}: no readable NIR file ({first_line(error)}); it may be truncated: export it again"
        ) from error
    if not isinstance(graph, nir.NIRGraph):
        raise BadInputError(f"{path}: holds a single {type(graph).__name__}, not a graph; wrap it in a NIRGraph")
    return graph
