"""Reader of the NTU RGB+D pickles that pyskl distributes, ntu60_3danno.pkl and ntu120_3danno.pkl,
as data only.

A file holds a dict: `split`, {"xsub_train": [name, ...], "xsub_val": ...}, where "val" is the
benchmark's test part, and `annotations`, a list of {frame_dir: name, label: int, keypoint: (M, T,
25, 3) float16 or float32, total_frames: int}, in metres and in the sensor's coordinates. Zero
stands for a body that a frame lacks.

A pickle can run code in an ordinary loader, so the file is read by
mksgn/train/datasets/plain_pickle, which calls nothing that it names. The whole file is read into
memory. The arrays of all clips may not have more bytes than the file.

Source: Duan et al., PYSKL (ACM MM 2022), tools/data of its code.
"""

import os
from collections.abc import Set
from pathlib import Path
from typing import Any

import numpy as np

from mksgn.common.errors import BadInputError
from mksgn.train import choices
from mksgn.train.datasets import ntu
from mksgn.train.datasets.clips import Clip, ClipSet, LazyClips, check_finite, check_selection, spread
from mksgn.train.datasets.plain_pickle import Array, describe, load, show
from mksgn.train.skeletons import graph

SOURCE = "pyskl"
SPLITS = choices.SPLITS[SOURCE]
PARTS = {"train": "train", "test": "val"}  # the benchmark's name -> the file's
WARNING = (
    "warning: a pickle can run code in ordinary loaders (pickle, numpy, torch, pyskl); this reader extracts only "
    "arrays of numbers and plain containers, and calls nothing"
)
_REMEDY = "give pyskl's ntu60_3danno.pkl or ntu120_3danno.pkl as distributed, fetched again if necessary"


def read(path: str | Path, split: str | None, part: str, limit: int | None = None) -> ClipSet:
    """Read the clips of `part` ("train" or "test") of `split` (see SPLITS; None: xsub), sorted by
    name, joints unread.

    A file is of NTU RGB+D 120 if it has a label of 60 or more, a split xset, or a name with
    "ntu120", and its xsub is the project's xsub120. Only the first `total_frames` of a clip count;
    frames without any body are left out, and so are bodies that are zero throughout. As in the
    other readers of NTU RGB+D, and in pyskl's own pipeline, the middle of the spine of body 1, in
    its first frame, becomes the origin, and a body stays zero where it is absent. `limit` takes some
    of the clips, as `spread` selects them. `notes` give the published count, tell what was left out,
    and warn about pickles.

    Raises BadInputError for an unknown split or part, a file that cannot be read, is damaged, or
    names anything but numpy's arrays, annotations that are not 25 joints of 3 coordinates, labels
    that contradict a clip's name; and, when that clip is asked for, for one without a body.
    """
    path = Path(os.path.expanduser(path))
    split = SPLITS[0] if split is None else split
    check_selection(SOURCE, SPLITS, split, part)
    document, size = load(path, _REMEDY)
    annotations, bodiless = _annotations(path, document, size)
    split = _split(path, split, document["split"], annotations)
    names, elsewhere = _names(path, document["split"], split, part)
    present = sorted(names & annotations.keys())
    if not present:
        raise BadInputError(
            f"{path}: none of the {len(names)} clips of the {part} part of split {split} is there: {_REMEDY}"
        )
    parsed = [_check(path, name, annotations[name], split) for name in present]
    labels = np.array([name.label for name in parsed], dtype=np.int64)
    stored = [(annotations[name]["keypoint"].values, annotations[name]["total_frames"]) for name in present]
    clips = LazyClips(labels, lambda index: _clip(path, present[index], parsed[index], *stored[index]))
    missing, idle = names - annotations.keys(), annotations.keys() - names - elsewhere
    strays = {name for name, numbers in zip(present, parsed, strict=True) if ntu.SPLITS[split].part(numbers) != part}
    noted = {
        f"of the {len(names):,} clips of this part left out, as they have no annotation": missing,
        f"of {len(annotations):,} annotations left out, as they are in no part of split {split}": idle,
        f"clips kept that the benchmark does not have in the {part} part of split {split}": strays,
    }
    notes = [WARNING, ntu.count_note(split, part, len(present))]
    notes += [f"{len(which):,} {what}: {_first(which)}" for what, which in noted.items() if which]
    if bodiless:
        notes.append(f"{bodiless:,} empty annotations left out, recordings without a body")
    return spread(ClipSet(SOURCE, split, part, ntu.GRAPH, ntu.classes(split), clips, tuple(notes)), limit)


def _first(names: Set[str]) -> str:
    return show(min(names)) + (", ..." if len(names) > 1 else "")


def _annotations(path: Path, document: Any, size: int) -> tuple[dict[str, dict], int]:
    """Index the annotations by name, and count those that are None."""
    entries = document.get("annotations") if type(document) is dict else None
    if type(entries) is not list or not entries or type(document.get("split")) is not dict:
        raise BadInputError(
            f"{path}: holds {describe(document)}, expected a dict with split and annotations: {_REMEDY}"
        )
    named: dict[str, dict] = {}
    total, bodiless = 0, 0
    for index, entry in enumerate(entries):
        if entry is None:  # pyskl's script leaves one for a recording in which no body was seen
            bodiless += 1
            continue
        name = entry.get("frame_dir") if type(entry) is dict else None
        if type(name) is not str:
            raise BadInputError(f"{path}: annotation {index} (from 0) has no frame_dir, the clip's name: {_REMEDY}")
        if type(entry.get("label")) is not int:
            raise BadInputError(
                f"{path}: {show(name)} has {describe(entry.get('label'))} as label, expected a number: {_REMEDY}"
            )
        if named.setdefault(name, entry) is not entry or len(named) + bodiless <= index:
            raise BadInputError(f"{path}: two annotations are named {show(name)}: {_REMEDY}")
        keypoint = entry.get("keypoint")
        total += keypoint.values.nbytes if type(keypoint) is Array else 0
    if total > size:  # arrays shared by clips: a small file that becomes large when read
        raise BadInputError(
            f"{path}: {total} bytes of keypoints in a file of {size}, expected each array to be stored separately: "
            f"{_REMEDY}"
        )
    return named, bodiless


def _split(path: Path, split: str, lists: dict, annotations: dict[str, dict]) -> str:
    """Find the name in ntu.SPLITS that has as many classes as the file."""
    large = "ntu120" in path.name.lower() or any(f"xset_{word}" in lists for word in PARTS.values())
    classes = 120 if large or any(entry["label"] >= ntu.ACTIONS_60 for entry in annotations.values()) else 60
    split = "xsub120" if split == "xsub" and classes == 120 else split
    if ntu.SPLITS[split].classes != classes:
        fitting = " or ".join(other for other in SPLITS if ntu.SPLITS[other].classes == classes)
        raise BadInputError(
            f"{path}: NTU RGB+D {classes}, expected {ntu.SPLITS[split].classes} classes for split "
            f"{split}: use --split {fitting}"
        )
    return split


def _names(path: Path, lists: dict, split: str, part: str) -> tuple[set[str], set[str]]:
    """Return the names in this part of the split, and those in the other part."""
    listed: dict[str, set[str]] = {}
    for name, word in PARTS.items():
        key = f"{split.removesuffix('120')}_{word}"
        names = lists.get(key, [] if name != part else None)
        if type(names) is not list or not all(type(clip) is str for clip in names):
            held = ascii(", ".join(key for key in lists if type(key) is str)[:200])
            raise BadInputError(
                f"{path}: no list of names {key}, which the {name} part of split {split} needs, found {held}: "
                "use a split that the file has, or fetch the file again"
            )
        listed[name] = set(names)
        if len(listed[name]) < len(names):
            raise BadInputError(
                f"{path}: {len(names) - len(listed[name])} names appear twice in {key}, expected 0: {_REMEDY}"
            )
    if both := listed["train"] & listed["test"]:
        raise BadInputError(
            f"{path}: {len(both)} clips are in both parts of split {split}, {show(min(both))} first, expected 0: a "
            f"test on clips that were trained on measures nothing, {_REMEDY}"
        )
    (other,) = PARTS.keys() - {part}
    return listed[part], listed[other]


def _check(path: Path, name: str, entry: dict, split: str) -> ntu.ClipName:
    """Check an annotation except its values, and return the numbers in the clip's name."""
    shown, keypoint, frames = show(name), entry.get("keypoint"), entry.get("total_frames")
    try:
        numbers = ntu.ClipName.parse(name)
    except BadInputError as error:
        raise BadInputError(
            f"{path}: {shown} is not SsssCcccPpppRrrrAaaa with A001 to A120: this reader takes NTU RGB+D "
            f"only, {_REMEDY}"
        ) from error
    if entry["label"] != numbers.label or numbers.action > ntu.SPLITS[split].classes:
        raise BadInputError(
            f"{path}: {shown} has label {show(entry['label'])}, expected {numbers.label} "
            f"({ntu.CLASSES[numbers.label]}) by its "
            f"name, and below {ntu.SPLITS[split].classes}: {_REMEDY}"
        )
    if type(keypoint) is not Array or keypoint.values.dtype.kind != "f":
        held = f"{keypoint.values.dtype} numbers" if type(keypoint) is Array else describe(keypoint)
        raise BadInputError(
            f"{path}: {shown} has {held} as keypoint, expected an array of float16 or float32: {_REMEDY}"
        )
    shape, joints = keypoint.values.shape, graph(ntu.GRAPH).size
    if len(shape) == 4 and (shape[3] == 2 or "keypoint_score" in entry or shape[2] == 17):
        raise BadInputError(
            f"{path}: {shown} has {shape[2]} joints of {shape[3]} coordinates, poses estimated from video (HRNet), "
            f"expected {joints} of 3: fetch ntu60_3danno.pkl or ntu120_3danno.pkl, the Kinect's joints, instead"
        )
    if len(shape) != 4 or shape[2:] != (joints, 3) or 0 in shape:
        raise BadInputError(
            f"{path}: {shown} has keypoints of shape {shape}, expected (bodies, frames, {joints}, 3), "
            f"none of them 0: {_REMEDY}"
        )
    if type(frames) is not int or not 1 <= frames <= shape[1]:
        raise BadInputError(
            f"{path}: {shown} has total_frames {show(frames)}, expected 1 to {shape[1]}, the frames of "
            f"its keypoints: {_REMEDY}"
        )
    return numbers


def _clip(path: Path, name: str, numbers: ntu.ClipName, array: np.ndarray, frames: int) -> Clip:
    with np.errstate(over="ignore"):  # of float64: infinite, and refused
        joints = array[:, :frames].astype(np.float32)
    check_finite(f"{path}: {name}", joints)
    present: np.ndarray = np.asarray(joints.any(axis=(2, 3)))
    if not present.any():
        raise BadInputError(f"{path}: {name} is zero in all its frames, expected a body: take it out of the split")
    bodies, seen = present.any(axis=1), present.any(axis=0)
    joints, present = joints[bodies][:, seen], present[bodies][:, seen]
    joints[present] -= joints[0, present[0].argmax(), graph(ntu.GRAPH).centre]
    return Clip(name, numbers.label, joints, ntu.GRAPH, numbers.subject, numbers.camera)
