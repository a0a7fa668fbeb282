"""Read and write .nir files: atomically, deterministically, with one-line errors."""

import contextlib
import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import nir
import nir.serialization
import numpy as np

import mksgn.export.graph.nodes  # noqa: F401  registers GraphConv and SpikingSelfAttention
from mksgn.common import hdf5
from mksgn.common.errors import BadInputError, MksgnWarning, first_line
from mksgn.common.quoting import printable
from mksgn.common.writing import replacing_file
from mksgn.export.choices import NO_GRAPH
from mksgn.export.graph.checks import check_graph
from mksgn.export.graph.content_hash import KEY as HASH
from mksgn.export.graph.content_hash import content_hash
from mksgn.export.graph.kinds import GRADED, SPIKING
from mksgn.export.graph.metadata import check_metadata
from mksgn.export.graph.shapes import ELEMENTWISE, parameters_of
from mksgn.export.graph.standard import standard_form

_WITHOUT_HASH = "was quantised without a hash of its content, so damage would go undetected; export it again"
POPULATIONS = tuple(node.__name__ for node in (*SPIKING, *GRADED))


def write(graph: nir.NIRGraph, path: Path | str) -> None:
    """Write a graph; the same graph gives the same bytes.

    A quantised graph gets a hash of its content, which `read` checks.
    nir.write refuses single numbers as parameters of a population, which norse and sinabs write; such a graph is
    brought into standard form first.

    Raises:
        BadInputError: As for `put`, or a convolution lacks its input_shape and nir cannot infer it.
    """
    if _has_single_numbers(graph):
        with warnings.catch_warnings():  # the warnings come when the graph is compiled
            warnings.simplefilter("ignore", MksgnWarning)
            graph = standard_form(graph)
    graph = _with_hash(_with_input_shapes(graph))

    def uncached(open_file: BinaryIO) -> None:
        # With HDF5's cache, a chunk's place depends on when it is flushed: when the last reference to its data set
        # goes. A profiler that holds frames, as Dask's workers do, would move it and change the file's sha256.
        with h5py.File(open_file, "w", rdcc_nbytes=0, rdcc_nslots=0) as file:
            nir.write(file.id, graph)

    put(Path(path), uncached)


def _with_hash(graph: nir.NIRGraph) -> nir.NIRGraph:
    if "quantization" not in graph.metadata:
        return graph
    graph = copy.copy(graph)
    graph.metadata = {**graph.metadata, HASH: content_hash(graph.to_dict())}
    return graph


def _has_single_numbers(graph: nir.NIRGraph) -> bool:
    """Return whether an elementwise node has a parameter without axes, which nir cannot compress."""
    return any(
        _has_single_numbers(node)
        if isinstance(node, nir.NIRGraph)
        else isinstance(node, ELEMENTWISE) and 0 in map(np.ndim, parameters_of(node).values())
        for node in graph.nodes.values()
    )


def _with_input_shapes(graph: nir.NIRGraph) -> nir.NIRGraph:
    """Return the graph with the input_shape of each convolution, which is optional in memory but not in a file."""
    if not _without_input_shape(graph):
        return graph
    graph = copy.deepcopy(graph)
    with contextlib.suppress(Exception):
        graph.infer_types()
    if missing := _without_input_shape(graph):
        raise BadInputError(f"node {missing}: nir cannot infer its input_shape, which a file must hold; set it")
    return graph


def _without_input_shape(graph: nir.NIRGraph) -> str:
    """Return the name of a convolution without input_shape, or "" if there is none."""
    for name, node in graph.nodes.items():
        if isinstance(node, nir.NIRGraph) and (inner := _without_input_shape(node)):
            return f"{name}.{inner}"
        if isinstance(node, nir.Conv1d | nir.Conv2d) and node.input_shape is None:
            return name
    return ""


def put(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a whole file at `path`, and make its folder if needed.

    Args:
        path: Where the file will be.
        write: Writes the content into the open file that it is given.

    Raises:
        BadInputError: `path` cannot be written.
    """
    if path.is_dir():
        raise BadInputError(f"{path}: is a directory; name a file in it with -o")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(path) as file:
            write(file)
    except OSError as error:
        raise BadInputError(
            f"{path}: cannot be written ({error.strerror or error}); choose another place with -o"
        ) from error


def read(path: Path) -> nir.NIRGraph:
    """Read a graph; our own structured files get full type checks.

    Other files get none: nir cannot type a kernel that is not square, a grouped convolution or a
    Linear on the last axis (NIR.md), and deploy checks every shape itself.

    Raises:
        BadInputError: The file is missing, truncated, damaged or not a NIR graph, or the graph cannot be run.
    """
    try:
        with hdf5.opened(path, "a NIR file", NO_GRAPH) as file:
            _check_kind(path, file)
            content = nir.serialization.hdf2dict(file["node"])
        _check_hash(path, content)
        graph = nir.dict2NIRNode(_as_of_today(content))
        _check(path, graph)
    except BadInputError:
        raise
    except AssertionError as error:  # nir gives no reason for a node type that it does not know
        raise BadInputError(
            f"{path}: holds a node that nir {nir.version} and mksgn do not know; export it with primitives of NIR"
        ) from error
    except Exception as error:  # from h5py, KeyError, ValueError, …, depending on where the damage is
        raise BadInputError(
            f"{path}: not a readable NIR file ({printable(first_line(error))}); it may be truncated: export it again"
        ) from error
    return graph


def is_graph(path: Path) -> bool:
    """Return whether an HDF5 file is a graph, and not a network of lava-dl.

    Raises:
        BadInputError: It is not an HDF5 file, or exceeds a limit.
    """
    try:
        with hdf5.opened(path, "a NIR file", NO_GRAPH) as file:
            return "layer" not in file
    except BadInputError:
        raise
    except Exception:  # h5py's, which `read` reports in full
        return True


def _check_hash(path: Path, content: dict[str, Any]) -> None:
    """Compare the content of a quantised file with the hash stored in it, and remove the hash.

    Raises:
        BadInputError: They differ.
    """
    metadata = content.get("metadata")
    if not isinstance(metadata, dict):
        return
    expected = metadata.pop(HASH, None)
    if expected is None:
        if "quantization" in metadata:
            warnings.warn(f"{path}: {_WITHOUT_HASH}", MksgnWarning, stacklevel=3)
    elif not isinstance(expected, str) or expected != content_hash(content):
        raise BadInputError(
            f"{path}: differs from what was exported: its content does not match the hash in its metadata; export it "
            "again, or write an edited graph with mksgn.export.write_nir"
        )


def _check(path: Path, graph: nir.NIRNode) -> None:
    """Infer types where nir can, and check the metadata and the graph."""
    if not isinstance(graph, nir.NIRGraph):
        raise BadInputError(f"{path}: holds a single {type(graph).__name__}, not a graph; wrap it in a NIRGraph")
    try:
        check_metadata(graph)
        check_graph(graph)
    except BadInputError as error:
        raise BadInputError(f"{path}: {error}") from error
    if graph.metadata.get("profile") == "structured":
        graph.infer_types()
        graph.check_types()
    else:
        # where nir fails, only a convolution's input_shape is lost
        with contextlib.suppress(Exception):
            graph.infer_types()


def _check_kind(path: Path, file: h5py.File) -> None:
    """Refuse an HDF5 file of another kind, and say what it is."""
    if "node" in file:
        return
    if "layer" in file:
        raise BadInputError(f"{path}: is a lava-dl network; convert it with mksgn-export {path} --to nir")
    if "nodes" in file:
        raise BadInputError(
            f"{path}: holds recordings (NIRGraphData), not a graph; compare them with mksgn-bench compare RUN {path}"
        )
    held = printable(", ".join(sorted(file)[:5])[:200]) or "nothing"
    raise BadInputError(
        f"{path}: is another kind of HDF5 file, with {held} and no 'node'; name a file that nir.write wrote"
    )


def _as_of_today(node: dict[str, Any]) -> dict[str, Any]:
    """Convert a node's fields to nir 1.0.8, and turn off type checks.

    Until 0.2.0, convolutions had no input_shape. A population's parameters are broadcast to one shape, which nir's
    constructors require; `standard_form` then gives them the shape of their signal.
    """
    if node.get("type") in POPULATIONS:
        values = {name: value for name, value in node.items() if isinstance(value, np.ndarray | np.generic | float)}
        if "v_threshold" in values and "v_reset" not in values:
            values["v_reset"] = np.zeros_like(values["v_threshold"])
        with contextlib.suppress(ValueError):
            broadcast = np.broadcast_arrays(*values.values())
            return node | {name: np.array(value) for name, value in zip(values, broadcast, strict=True)}
    if node.get("type") in ("Conv1d", "Conv2d"):
        return {"input_shape": None, **node}
    if node.get("type") == "NIRGraph":
        return {
            **node,
            "nodes": {name: _as_of_today(inner) for name, inner in node["nodes"].items()},
            "type_check": False,
        }
    return node
