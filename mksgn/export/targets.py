"""Which files mksgn-export may replace: those of the format that it writes."""

from pathlib import Path

from mksgn.common import hdf5
from mksgn.common.writing import check_replaceable, head_of

PARITY_FILE = "parity.json"
_PARITY = '{\n  "schema": "mksgn.parity/'
_ONNX_PRODUCER = "mksgn"  # among the first fields of an ONNX file that mksgn wrote
_HEAD = 64


def check(path: Path, to: str, *, verifies: bool, overwrite: bool) -> None:
    """Raise BadInputError if a file of another kind is at `path`, or where its parity.json would be."""
    ours = _is_graph(path) if to == "nir" else _ONNX_PRODUCER in head_of(path, _HEAD)
    what = "a NIR graph" if to == "nir" else "an ONNX file of mksgn"
    check_replaceable(path, ours, what, overwrite=overwrite)
    if verifies:
        parity = path.with_name(PARITY_FILE)
        check_replaceable(parity, head_of(parity).startswith(_PARITY), "a parity.json", overwrite=overwrite)


def _is_graph(path: Path) -> bool:
    if not hdf5.is_hdf5(path):
        return False
    try:
        with hdf5.opened(path, "a NIR graph", "name a file") as file:
            return "node" in file
    except Exception:  # damaged, or with features that no graph needs: HDF5 raises errors of any class
        return False
