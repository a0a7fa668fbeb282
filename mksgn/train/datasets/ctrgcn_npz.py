"""Reader of the NTU RGB+D arrays that CTR-GCN prepares: NTU60_CS.npz, NTU60_CV.npz,
NTU120_CSub.npz, NTU120_CSet.npz.

A file holds both parts of one split: `x_train` (N, 300, 150) float32 and `y_train` (N, 60 or 120),
one-hot, and `x_test` and `y_test` likewise. The 150 values of a frame are 2 bodies of 25 joints of 3
coordinates, in metres. The middle of the spine of body 1 in its first frame is the origin: the
preparation subtracts it. Zero stands for what is not there: the frames after a clip's end, and a
body in a frame that lacks it.

The array of 7 GB is never loaded: each clip is read from its own place in the file when it is asked
for (mksgn/common/npz).

Source: Chen et al., Channel-wise Topology Refinement Graph Convolution (ICCV 2021),
data/ntu*/seq_transformation.py and feeders/feeder_ntu.py of its code.
"""

import math
import os
import re
from pathlib import Path

import numpy as np

from mksgn.common import npz
from mksgn.common.contents import check_pointer
from mksgn.common.errors import BadInputError, first_line
from mksgn.common.npz import StoredArray
from mksgn.common.reading import open_file
from mksgn.train import choices
from mksgn.train.datasets import ntu
from mksgn.train.datasets.clips import Clip, ClipSet, LazyClips, check_finite, check_selection, spread
from mksgn.train.skeletons import graph

SOURCE = "ctrgcn"
SPLITS = choices.SPLITS[SOURCE]
BODIES = 2
_WORDS = {"cs": "xsub", "csub": "xsub", "xsub": "xsub", "cv": "xview", "xview": "xview", "cset": "xset", "xset": "xset"}
_LABEL_ROWS = 4096  # read at once: 4 MB
_MADE = (
    f"{SOURCE}:PATH must be an .npz as CTR-GCN writes it; make it with its get_raw_skes_data.py, "
    "get_raw_denoised_data.py and seq_transformation.py, or read the raw files as ntu:PATH"
)


def read(path: str | Path, split: str | None, part: str, limit: int | None = None) -> ClipSet:
    """Open the clips of `part` ("train" or "test"), in the file's order, unread; names such as
    x_train[17], subjects unknown.

    A file holds one split, which its name tells (CS or CSub: xsub, or xsub120 if it has 120 classes;
    CV: xview; CSet: xset). With `split` None that one is taken, and any other is refused, except that
    "xsub" may stand for "xsub120". If the name tells none, `split` does. `limit` takes some of the
    clips, as `spread` selects them. `notes` give the published count.

    A clip's frames are taken as CTR-GCN's feeder takes them: if n frames are not all zero, the first
    n of the row are the clip. Left out are a body that is zero throughout, and a second body that
    repeats the first: the preparation of NTU RGB+D 120 writes the body of a one-person clip twice.

    Raises BadInputError for an unknown or contradicted split, an unknown part, a file that cannot
    be read, is damaged or compressed, or has arrays of another form; and, when that clip is asked
    for, for a row that is zero throughout.
    """
    path = Path(os.path.expanduser(path))
    check_selection(SOURCE, SPLITS, split, part)
    arrays = _arrays(path, (f"x_{part}", f"y_{part}"))
    x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
    _check_shapes(path, part, x, y)
    split = _split(path, split, y.shape[1])
    labels = _labels(path, f"y_{part}", y)
    clips = LazyClips(labels, lambda index: _clip(path, f"x_{part}[{index}]", x, index, int(labels[index])))
    notes = (ntu.count_note(split, part, len(clips)),)
    return spread(ClipSet(SOURCE, split, part, ntu.GRAPH, ntu.classes(split), clips, notes), limit)


def _split(path: Path, split: str | None, classes: int) -> str:
    """Find the name in ntu.SPLITS from the file's name and its number of classes, or take
    `split`."""
    told = {_WORDS[word] for word in re.split(r"[^a-z0-9]+", path.stem.lower()) if word in _WORDS}
    if len(told) != 1 and split is None:
        raise BadInputError(
            f"{path}: its name does not show its split: give --split {', '.join(SPLITS)}, or name it as CTR-GCN does, "
            "such as NTU60_CS.npz"
        )
    (chosen,) = told if len(told) == 1 else {split or ""}
    chosen = "xsub120" if chosen == "xsub" and classes == 120 else chosen
    if ntu.SPLITS[chosen].classes != classes:
        raise BadInputError(
            f"{path}: labels of {classes} classes, expected {ntu.SPLITS[chosen].classes} for split {chosen}: "
            "name the file, or give --split, according to its content"
        )
    if split is not None and split != chosen and (split, chosen) != ("xsub", "xsub120"):
        raise BadInputError(f"{path}: holds split {chosen} by its name, not {split}: leave out --split {split}")
    return chosen


def _arrays(path: Path, names: tuple[str, ...]) -> dict[str, StoredArray]:
    """Locate arrays of the .npz without reading them."""
    try:
        with open_file(path, None, _MADE) as file:
            check_pointer(path)
            members = npz.members(file)
            for name in names:
                if name not in members:
                    raise BadInputError(
                        f"{path}: no array {name}, expected x_train, y_train, x_test, y_test, found "
                        f"{npz.found(members)!a}: {SOURCE}:PATH must be an .npz as CTR-GCN writes it"
                    )
            arrays = {name: npz.locate_member(path, file, name, members[name]) for name in names}
    except npz.BROKEN as error:
        raise BadInputError(f"{path}: not an .npz ({first_line(error)}): fetch or write the file again") from error
    for name, array in arrays.items():
        if array.fortran:
            raise BadInputError(
                f"{path}: {name} is in Fortran order, so a clip's values are not contiguous: "
                "save it again after np.ascontiguousarray"
            )
    return arrays


def _check_shapes(path: Path, part: str, x: StoredArray, y: StoredArray) -> None:
    row = BODIES * graph(ntu.GRAPH).size * 3
    if x.dtype.kind != "f" or x.dtype.itemsize not in (4, 8):
        raise BadInputError(f"{path}: x_{part} is {x.dtype}, expected float32 or float64: save it as float32")
    if len(x.shape) != 3 or x.shape[2] != row or 0 in x.shape:
        raise BadInputError(
            f"{path}: x_{part} has shape {x.shape}, expected (clips, frames, {row}), {BODIES} bodies of "
            f"{graph(ntu.GRAPH).size} joints of 3 coordinates: write the file with CTR-GCN's seq_transformation.py"
        )
    if y.dtype.kind not in "fiub" or len(y.shape) != 2 or y.shape[1] not in (60, 120):
        raise BadInputError(
            f"{path}: y_{part} is {y.dtype} of shape {y.shape}, expected numbers (clips, 60 or 120), one-hot: "
            "write the file with CTR-GCN's seq_transformation.py"
        )
    if y.shape[0] != x.shape[0]:
        raise BadInputError(
            f"{path}: {y.shape[0]} labels in y_{part}, expected {x.shape[0]}, as many as clips in x_{part}: "
            "fetch or write the file again"
        )


def _labels(path: Path, name: str, y: StoredArray) -> np.ndarray:
    """Read the labels, (clips,) int64, from the one-hot rows."""
    labels = np.empty(y.shape[0], dtype=np.int64)
    for start in range(0, len(labels), _LABEL_ROWS):
        rows = _rows(path, y, start, min(_LABEL_ROWS, len(labels) - start))
        bad = ((rows == 1).sum(axis=1) != 1) | ((rows != 0).sum(axis=1) != 1)
        if bad.any():
            raise BadInputError(
                f"{path}: row {start + int(bad.argmax())} (from 0) of {name} is not one-hot, expected a single 1 among "
                "zeros: fetch or write the file again"
            )
        labels[start : start + len(rows)] = rows.argmax(axis=1)
    return labels


def _clip(path: Path, name: str, x: StoredArray, index: int, label: int) -> Clip:
    with np.errstate(over="ignore"):  # too large for float32: infinite, and refused
        row = _rows(path, x, index, 1)[0].astype(np.float32)
    bodies = row.reshape(len(row), BODIES, -1, 3).transpose(1, 0, 2, 3)
    check_finite(f"{path}: {name}", bodies)
    present = bodies.any(axis=(1, 2, 3))
    if not present.any():
        raise BadInputError(f"{path}: {name} is zero in all {len(row)} frames, expected a body: leave out the row")
    if np.array_equal(bodies[0], bodies[1]):
        present[1] = False
    frames = int(row.any(axis=1).sum())
    return Clip(name, label, np.ascontiguousarray(bodies[present, :frames]), ntu.GRAPH)


def _rows(path: Path, array: StoredArray, start: int, count: int) -> np.ndarray:
    """Read rows of the first axis."""
    size = math.prod(array.shape[1:])
    offset = array.offset + start * size * array.dtype.itemsize
    try:
        values = np.fromfile(path, array.dtype, count * size, offset=offset)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror or error}): leave it in place") from error
    if len(values) != count * size:
        raise BadInputError(f"{path}: shorter than when it was opened: leave it in place until the command has ended")
    return values.reshape(count, *array.shape[1:])
