"""A graph's metadata: its schema, and the student and the normaliser that it was exported from."""

import json
from typing import Any

import nir

from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import StudentConfig

SCHEMA = "mksgn.nir/1"


def json_of(graph: nir.NIRGraph, key: str) -> Any:
    """Read an entry of the metadata that is stored as JSON text; None if there is none."""
    text = graph.metadata.get(key)
    return None if text is None else json.loads(text)


def student_config(graph: nir.NIRGraph) -> StudentConfig | None:
    """The student's config, or None for a graph that was not exported from a student."""
    values = json_of(graph, "student")
    return None if values is None else StudentConfig(**values)


def input_normaliser(graph: nir.NIRGraph) -> StreamNormaliser | None:
    """How clips become the input of this graph; None for a graph that does not say."""
    for node in graph.nodes.values():
        if isinstance(node, nir.Input) and "normaliser" in node.metadata:
            return StreamNormaliser.from_dict(json.loads(node.metadata["normaliser"]))
    return None
