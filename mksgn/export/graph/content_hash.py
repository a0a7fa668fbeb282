"""The hash that a quantised file carries of its nodes, edges and metadata, to detect damage to any value."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

KEY = "content_sha256"  # an entry of the graph's metadata, only in the file


def content_hash(content: Mapping[str, Any]) -> str:
    """Return the hash, in hexadecimal, of a graph as `NIRGraph.to_dict` gives it and as `hdf2dict` reads it.

    The names, types, shapes and bytes of all values count; their order, and how HDF5 stores them, do not. The
    graph's own entry KEY is left out.
    """
    digest = hashlib.sha256()
    _add(digest, content, top=True)
    return digest.hexdigest()


def _add(digest: Any, content: Mapping[str, Any], *, top: bool = False) -> None:
    digest.update(b"{")
    for name in sorted(content, key=str):
        value = content[name]
        if name == "metadata" and isinstance(value, Mapping):
            value = {key: entry for key, entry in value.items() if not (top and key == KEY)}
            if not value:  # nir does not write empty metadata
                continue
        _add_text(digest, str(name))
        if isinstance(value, Mapping):
            _add(digest, value)
        elif isinstance(value, str | bytes):
            _add_text(digest, value)
        else:
            _add_array(digest, np.asarray(value))
    digest.update(b"}")


def _add_array(digest: Any, array: np.ndarray) -> None:
    if array.dtype.kind in "OSU":  # text, such as the ends of edges
        digest.update(f"[{array.shape}".encode())
        for text in array.ravel():
            _add_text(digest, text)
        return
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(array.shape)
    digest.update(f"#{array.dtype.str}{array.shape}".encode())
    digest.update(array.data if array.ndim else array.tobytes())


def _add_text(digest: Any, text: str | bytes) -> None:
    content = text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape")
    digest.update(f"'{len(content)}:".encode() + content)
