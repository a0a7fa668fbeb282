"""What a graph says of itself beside its nodes: its schema, and the student and the normaliser that it was made from."""

from __future__ import annotations

import json
from typing import Any

import nir

from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import StudentConfig

SCHEMA = "mksgn.nir/1"


def json_of(graph: nir.NIRGraph, key: str) -> Any:
    """An entry of the metadata that is kept as JSON text; None where the graph has none."""
    text = graph.metadata.get(key)
    return None if text is None else json.loads(text)


def student_config(graph: nir.NIRGraph) -> StudentConfig | None:
    """The student's config, or None for a graph that was not exported from a student."""
    values = json_of(graph, "student")
    return None if values is None else StudentConfig(**values)


def input_normaliser(graph: nir.NIRGraph) -> StreamNormaliser | None:
    """How raw clips become the input of this graph; None for a graph that does not say."""
    for node in graph.nodes.values():
        if isinstance(node, nir.Input) and "normaliser" in node.metadata:
            return StreamNormaliser.from_dict(json.loads(node.metadata["normaliser"]))
    return None
