"""Reader of Northwestern-UCLA Multiview Action 3D, as the field distributes it: `all_sqe/*.json`,
one file per clip.

A file `aAA_sSS_eEE_vVV.json` (action, subject, episode, view) holds an object with `file_name`,
`label` and `skeletons`: (T, 20, 3) in metres. The dataset numbers its actions 1-6, 8, 9, 11, 12;
`label` in the distributed files is *not* that number but counts the ten classes from 1 (a08 has
label 7, a12 has label 10). So the class comes from the action in the file's name, where the two
numberings cannot be confused, and `label` is only checked against it.

Source: Wang et al., Cross-view Action Modeling, Learning and Recognition (CVPR 2014); skeletons as
in CTR-GCN.
"""

import re
import reprlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mksgn.common import json_text
from mksgn.common.errors import BadInputError
from mksgn.common.progress import track
from mksgn.train.datasets.clips import Clip, ClipSet, check_selection, clip_folder
from mksgn.train.skeletons import graph

SOURCE = "nw-ucla"
GRAPH = "nw-ucla-20"
CLIP_BYTES = 1 << 24  # of one clip, 16 times the longest of the data set
ACTIONS = (1, 2, 3, 4, 5, 6, 8, 9, 11, 12)  # the dataset's own numbers, in class order
CLASSES = (
    "pick up with one hand",
    "pick up with two hands",
    "drop trash",
    "walk around",
    "sit down",
    "stand up",
    "donning",
    "doffing",
    "throw",
    "carry",
)
SUBJECTS = tuple(range(1, 11))


class Part(NamedTuple):
    """The clips of one part of a split: those of these views, performed by these subjects."""

    views: tuple[int, ...]
    subjects: tuple[int, ...] = SUBJECTS


SPLITS: dict[str, dict[str, Part]] = {
    "xview": {"train": Part((1, 2)), "test": Part((3,))},  # the benchmark's own
    # for those who have no view 3, and for model selection: inside the benchmark's training split [ours]
    "view1-2": {"train": Part((1,)), "test": Part((2,))},
    "subject-val": {"train": Part((1, 2), SUBJECTS[:7]), "test": Part((1, 2), SUBJECTS[7:])},
}
VALIDATION = ("view1-2", "subject-val")
_LARGEST = float(np.finfo(np.float32).max)
_NAME = re.compile(r"a(\d{2})_s(\d{2})_e(\d{2})_v(\d{2})")
_FOLDER = (
    f"{SOURCE}:PATH must be the folder all_sqe, or the one that holds it, with a file per "
    "clip, such as all_sqe/a01_s01_e00_v01.json; the data set's skeletons come in this form with "
    "the code of CTR-GCN and of models based on it"
)


def read(path: str | Path, split: str, part: str) -> ClipSet:
    """Read the clips of `part` ("train" or "test") of `split` (see SPLITS), sorted by file name.

    `path` is the folder all_sqe or the one that holds it. Raises BadInputError for an unknown split
    or part, a folder or view that is not there, and whatever `read_clip` refuses.
    """
    check_selection(SOURCE, SPLITS, split, part)
    folder = clip_folder(Path(path), "all_sqe", "*.json", _FOLDER)
    views, subjects = SPLITS[split][part]
    by_view: dict[int, list[Path]] = {view: [] for view in views}
    for file in sorted(folder.glob("*.json")):
        _, subject, _, view = _numbers(file)
        if view in by_view and subject in subjects:
            by_view[view].append(file)
    for view, files in by_view.items():
        if not files:
            others = " or ".join(f"--split {other}" for other in SPLITS if other != split)
            whose = "" if subjects == SUBJECTS else f" by subjects {subjects[0]} to {subjects[-1]}"
            raise BadInputError(
                f"{folder}: no clip of view {view}{whose}, which the {part} part of split {split} needs: "
                f"add the files *_v{view:02d}.json, or use {others}"
            )
    chosen = sorted(file for files in by_view.values() for file in files)
    clips = [read_clip(file) for file in track(chosen, len(chosen), "clips read")]
    return ClipSet(SOURCE, split, part, GRAPH, CLASSES, clips, validation=split in VALIDATION)


def read_clip(path: str | Path) -> Clip:
    """Read one clip, joints (1, T, 20, 3) float32 in metres.

    Raises BadInputError for a name that is not aAA_sSS_eEE_vVV, an unreadable file, invalid JSON, a
    missing key, an unknown action, a label that contradicts the name, no frames, a frame without
    exactly 20 joints of 3 finite coordinates.
    """
    path = Path(path)
    action, subject, _, view = _numbers(path)
    if action not in ACTIONS:
        known = ", ".join(map(str, ACTIONS))
        raise BadInputError(f"{path}: unknown action {action}, expected one of {known}: remove the file")
    record = json_text.read(path, "fetch the file again", limit=CLIP_BYTES, nonfinite=True)  # _joints says where
    for key in ("file_name", "label", "skeletons"):
        if not isinstance(record, dict) or key not in record:
            raise BadInputError(f"{path}: no key {key!r}, expected file_name, label, skeletons: fetch the file again")
    name, number = record["file_name"], record["label"]
    if name != path.stem:
        raise BadInputError(f"{path}: its file_name says {reprlib.repr(name)}: rename the file to match its content")
    label = ACTIONS.index(action)
    # The distributed files count classes from 1; copies that carry the action's own number mean the
    # same clip.
    if type(number) is not int or number not in (label + 1, action):
        raise BadInputError(
            f"{path}: unknown label {reprlib.repr(number)}, expected {label + 1} for action {action} "
            f"({CLASSES[label]}): correct the label or remove the file"
        )
    return Clip(path.stem, label, _joints(path, record["skeletons"])[None], GRAPH, subject=subject, view=view)


def _numbers(path: Path) -> tuple[int, int, int, int]:
    """Parse action, subject, episode and view from a file's name."""
    match = _NAME.fullmatch(path.stem)
    if match is None:
        form = "aAA_sSS_eEE_vVV.json (action, subject, episode, view)"
        raise BadInputError(f"{path}: the name of a clip must have the form {form}: rename or remove the file")
    action, subject, episode, view = map(int, match.groups())
    return action, subject, episode, view


def _joints(path: Path, skeletons: Any) -> np.ndarray:
    """Convert to (T, 20, 3) float32, or raise BadInputError that names the first fault."""
    expected = graph(GRAPH).size
    try:
        raw = np.array(skeletons)
    except (ValueError, TypeError, OverflowError):  # ragged
        raw = np.empty(0)
    if raw.dtype.kind in "fiu" and raw.ndim == 3 and raw.shape[0] > 0 and raw.shape[1:] == (expected, 3):
        with np.errstate(over="ignore"):  # too large for float32: infinite, and refused below
            joints = raw.astype(np.float32)
        if np.isfinite(joints).all():
            return joints
    raise BadInputError(f"{path}: {_first_fault(skeletons, expected)}")


def _first_fault(skeletons: Any, expected: int) -> str:
    """Describe the first fault of skeletons that are not (T, `expected`, 3) finite numbers."""
    if not isinstance(skeletons, list):
        return f"skeletons is {type(skeletons).__name__}, expected a list of frames: fetch the file again"
    if not skeletons:
        return "the clip has 0 frames, expected at least 1: remove the file"
    for f, frame in enumerate(skeletons):
        count = len(frame) if isinstance(frame, list) else 0
        if count != expected:
            return (
                f"frame {f} (from 0) has {count} joints, expected {expected}: this reader takes {GRAPH} skeletons "
                "only, fetch the file again or remove it"
            )
        for j, joint in enumerate(frame):
            place = f"frame {f}, joint {j} ({graph(GRAPH).joints[j]}; both from 0)"
            if not isinstance(joint, list) or len(joint) != 3:
                count = len(joint) if isinstance(joint, list) else 0
                return f"{place} has {count} coordinates, expected 3: fetch the file again or remove it"
            for value in joint:
                shown = reprlib.repr(value)
                if type(value) not in (int, float):
                    return f"{place}: {shown} is not a number: fetch the file again or remove it"
                if not abs(value) <= _LARGEST:  # NaN too
                    return f"{place}: {shown} is not a finite number of metres: repair that frame or remove the file"
    return "skeletons cannot be read as numbers: fetch the file again"  # no JSON value gets here
