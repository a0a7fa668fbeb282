"""The second stage: lower a student to a NIR graph, quantise it once, and write a file."""

from mksgn.export.graph.files import write as write_nir
from mksgn.export.to_nir import export_to_nir

__all__ = ["export_to_nir", "write_nir"]
