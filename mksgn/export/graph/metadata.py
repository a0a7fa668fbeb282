"""A graph's metadata: its schema, and the student and the normaliser that it was exported from."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import nir
import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from mksgn.common.errors import BadInputError
from mksgn.common.json_text import parsed
from mksgn.common.quoting import printable, quoted
from mksgn.common.schemas import LenientModel
from mksgn.common.validation import one_line
from mksgn.train.choices import BITS
from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import StudentConfig

SCHEMA = "mksgn.nir/1"
STEPS_LIMIT = 1 << 20  # of a sample: 105 s at 0.1 ms, and 1 MB of spikes for each 8 neurons
EXPONENT_LIMIT = 126  # of a unit 2^n, which float32 has to hold
DEPTH = 8  # of metadata nested in metadata; ours have none
_REMEDY = "export the file again, or correct its metadata"


class _Scale(LenientModel):
    """A population's scale; only the exponent is needed. `quantization.scales.PopulationScale` describes the others."""

    exponent: int = Field(ge=-EXPONENT_LIMIT, le=EXPONENT_LIMIT)
    scale: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    binding: str | None = None
    saturated: int | None = Field(default=None, ge=0)
    agreement: float | None = Field(default=None, allow_inf_nan=False)
    firing_rate: float | None = Field(default=None, allow_inf_nan=False)
    worst_sum: float | None = Field(default=None, allow_inf_nan=False)
    largest_sum: float | None = Field(default=None, allow_inf_nan=False)
    weight_exponents: dict[str, Annotated[int, Field(ge=0, le=BITS[-1] - BITS[0])]] = Field(default_factory=dict)


class _Quantization(LenientModel):
    bits: int | None = Field(default=None, ge=BITS[0], le=BITS[-1])
    exact_on_chip: bool | None = None
    populations: dict[str, _Scale]


_NAMES: TypeAdapter[Any] = TypeAdapter(Annotated[list[str], Field(max_length=1 << 16)])
_ENTRIES: TypeAdapter[Any] = TypeAdapter(dict[str, Any])
_JSON: dict[str, TypeAdapter[Any]] = {  # entries that are JSON text, and what the text holds
    "streams": _NAMES,
    "joints": _NAMES,
    "classes": _NAMES,
    "versions": _ENTRIES,
    "student": _ENTRIES,
    "training": _ENTRIES,
    "variant": _ENTRIES,
    "quantization": TypeAdapter(_Quantization),
}
_TEXT = ("schema", "profile", "parent", "reset", "source")
_SECONDS = ("dt", "if_dt")
_COUNTS = {"steps": (1, STEPS_LIMIT), "spike_delay": (0, 1), "product_units": (0, 1 << 40)}


def json_of(graph: nir.NIRGraph, key: str) -> Any:
    """Read an entry of the metadata that is stored as JSON text; None if there is none.

    Raises:
        BadInputError: It is not text, not JSON, or does not hold what is expected of it.
    """
    text = graph.metadata.get(key)
    return None if text is None else _parsed(key, text, _JSON.get(key))


def student_config(graph: nir.NIRGraph) -> StudentConfig | None:
    """Return the student's config, or None for a graph that was not exported from a student."""
    values = json_of(graph, "student")
    return None if values is None else StudentConfig(**values)


def input_normaliser(graph: nir.NIRGraph) -> StreamNormaliser | None:
    """Return what turns clips into the input of this graph; None if the graph does not say.

    Raises:
        BadInputError: It is damaged, or out of range.
    """
    for node in graph.nodes.values():
        if isinstance(node, nir.Input) and "normaliser" in node.metadata:
            return StreamNormaliser.from_dict(_parsed("normaliser", node.metadata["normaliser"], _ENTRIES))
    return None


def check_metadata(graph: nir.NIRGraph) -> None:
    """Check every entry that any stage reads, of the graph, its nodes and its nested graphs.

    Raises:
        BadInputError: An entry has another type, is not JSON, not finite, or out of range.
    """
    _check_values(graph.metadata)
    for key, (low, high) in _COUNTS.items():
        value = graph.metadata.get(key, low)
        if not _is_number(value) or value != int(value) or not low <= value <= high:
            raise _refused(key, f"is {_told(value)}, expected a whole number from {low:,} to {high:,}")
    for key in _SECONDS:
        value = graph.metadata.get(key, 1.0)
        if not _is_number(value) or value <= 0:
            raise _refused(key, f"is {_told(value)}, expected seconds above 0")
    _check_texts(graph.metadata)
    schema = graph.metadata.get("schema", SCHEMA)
    if schema != SCHEMA and schema.startswith(SCHEMA.partition("/")[0] + "/"):
        raise BadInputError(f"metadata: schema {quoted(schema)} is newer than {SCHEMA}; read it with a newer mksgn")
    for key in _JSON:
        json_of(graph, key)
    student_config(graph)
    input_normaliser(graph)
    for name, node in graph.nodes.items():
        try:
            check_metadata(node) if isinstance(node, nir.NIRGraph) else _check_node(node)
        except BadInputError as error:
            raise BadInputError(f"node {quoted(name)}: {error}") from error


def _check_node(node: nir.NIRNode) -> None:
    _check_values(node.metadata)
    _check_texts(node.metadata)
    for key in ("integration", "signal"):
        if not isinstance(node.metadata.get(key, ""), str):
            raise _refused(key, f"is {_told(node.metadata[key])}, expected text")
    v_init = node.metadata.get("v_init", "")
    if not isinstance(v_init, str) and not (_is_number(v_init) or _is_finite(v_init)):
        raise _refused("v_init", "holds a value that is not a finite number")


def _check_values(metadata: Any, depth: int = 0) -> None:
    """Check that metadata is a dict of what HDF5 holds, in which nested dicts are groups."""
    if not isinstance(metadata, Mapping):
        raise BadInputError(f"metadata is a {type(metadata).__name__}, expected entries by name; {_REMEDY}")
    if depth > DEPTH:
        raise BadInputError(f"metadata is nested more than {DEPTH} deep, the limit; {_REMEDY}")
    for value in metadata.values():
        if isinstance(value, Mapping):
            _check_values(value, depth + 1)


def _check_texts(metadata: Mapping[str, Any]) -> None:
    for key in _TEXT:
        if not isinstance(metadata.get(key, ""), str):
            raise _refused(key, f"is {_told(metadata[key])}, expected text")


def _is_number(value: Any) -> bool:
    """Return whether a value is one finite number, and not a bool."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return math.isfinite(value)


def _is_finite(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "iuf" and bool(np.isfinite(value).all())


def _parsed(key: str, text: Any, expected: TypeAdapter[Any] | None) -> Any:
    """Parse an entry's JSON text, and check it against what is expected."""
    if not isinstance(text, str):
        raise _refused(key, f"is {_told(text)}, expected JSON as text")
    value = parsed(text, f"metadata {key}", _REMEDY)
    try:
        if expected is not None:
            expected.validate_python(value)
    except ValidationError as error:
        raise _refused(key, printable(one_line(error, show_value=True))[:200]) from error
    return value


def _told(value: Any) -> str:
    return quoted(value.item() if isinstance(value, np.generic) else value)


def _refused(key: str, what: str) -> BadInputError:
    return BadInputError(f"metadata {key}: {what}; {_REMEDY}")
