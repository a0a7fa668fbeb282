"""The second stage: lower a student to a NIR graph, quantise it once, and write a file."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mksgn.export.graph.files import write as write_nir
    from mksgn.export.to_nir import export_to_nir
else:  # imported on first use: the --help of a command needs none of them
    from mksgn.common.lazy import lazy_names

    __getattr__, __dir__ = lazy_names(__name__, {"export_to_nir": "to_nir", "write_nir": "graph.files:write"})

__all__ = ["export_to_nir", "write_nir"]
