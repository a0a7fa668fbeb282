"""Reader of UTD-MHAD's skeletons, as its authors distribute them: one MATLAB file per clip in the
folder Skeleton.

A file `aA_sS_tT_skeleton.mat` (action 1 to 27, subject 1 to 8, trial 1 to 4; no leading zeros) holds
`d_skel`, (20, 3, T) in metres, of one person. The axes are those of NW-UCLA's files, which come from
the same sensor: x to the person's right as they face it, y up, z away from it. So are the twenty
joints, of which the first four are in the opposite order; clips are given in the order of graph
nw-ucla-20:

    file     head, centre of shoulders, spine, centre of hips, then the limbs
    clip     centre of hips, spine, centre of shoulders, head, then the limbs

Three of the 864 recordings were damaged and are not distributed.

Source: Chen, Jafari, Kehtarnavaz, UTD-MHAD: A Multimodal Dataset for Human Action Recognition
Utilizing a Depth Camera and a Wearable Inertial Sensor (ICIP 2015); the order of joints is that of
Skeleton_joint_order.txt in the authors' sample code.
"""

import io
import re
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np

from mksgn.common.errors import BadInputError
from mksgn.common.extras import require
from mksgn.common.progress import track
from mksgn.common.reading import read_bytes
from mksgn.train.datasets.clips import Clip, ClipSet, check_finite, check_selection, clip_folder
from mksgn.train.skeletons import graph

SOURCE = "utd-mhad"
GRAPH = "nw-ucla-20"
VARIABLE = "d_skel"
CLASSES = (
    "right arm swipe to the left", "right arm swipe to the right", "right hand wave", "two hand front clap",
    "right arm throw", "cross arms in the chest", "basketball shoot", "right hand draw x",
    "right hand draw circle (clockwise)", "right hand draw circle (counter clockwise)", "draw triangle",
    "bowling (right hand)", "front boxing", "baseball swing from right", "tennis right hand forehand swing",
    "arm curl (two arms)", "tennis serve", "two hand push", "right hand knock on door", "right hand catch an object",
    "right hand pick up and throw", "jogging in place", "walking in place", "sit to stand", "stand to sit",
    "forward lunge (left foot forward)", "squat (two arms stretch out)",
)  # fmt: skip
LAST = {"action": len(CLASSES), "subject": 8, "trial": 4}  # the numbers of a file's name run from 1
MISSING = ((8, 1, 4), (23, 6, 4), (27, 8, 4))  # action, subject, trial of the recordings not distributed

SPLITS: dict[str, dict[str, tuple[int, ...]]] = {  # subjects of each part
    "xsub": {"train": (1, 3, 5, 7), "test": (2, 4, 6, 8)},  # the authors' own
    "xsub-val": {"train": (1, 3, 5), "test": (7,)},  # for model selection: inside xsub's training part [ours]
}
VALIDATION = ("xsub-val",)

# nw-ucla-20's names, in the order of the files: the trunk from the top down
JOINTS = ("head", "centre of shoulders", "spine", "centre of hips", *graph(GRAPH).joints[4:])
_ORDER = [JOINTS.index(name) for name in graph(GRAPH).joints]
_NAME = re.compile(r"a([1-9][0-9]?)_s([1-9])_t([1-9])_skeleton")
_FOLDER = (
    f"{SOURCE}:PATH must be the folder Skeleton, or the one that holds it, with a file per "
    "clip, such as Skeleton/a1_s1_t1_skeleton.mat; unpack Skeleton.zip from the data set's page"
)
_FETCH = "fetch the file again"
CLIP_BYTES = 1 << 24  # of one clip, compressed or not: 35,000 frames of 20 joints, 19 minutes at 30 a second
_HEADER, _COMPRESSED = 128, 15  # bytes before the first element of MATLAB 5, and the code of a compressed one
_ELEMENT_TYPES = (1, 2, 3, 4, 5, 6, 7, 9, 12, 13)  # MATLAB 5's codes of numbers
# the variable's name as an element of MATLAB 5, in either byte order: type 1 or 16, size, text filled up to 8 bytes
_VARIABLE_NAME = re.compile(rb"[\x00\x01\x10]{4}[\x00\x06]{4}d_skel..(.{4})", re.DOTALL)


def published(split: str, part: str) -> int:
    """Count the clips of a part that the authors distribute: in xsub 431 to train and 430 to test."""
    subjects = SPLITS[split][part]
    return LAST["action"] * LAST["trial"] * len(subjects) - sum(subject in subjects for _, subject, _ in MISSING)


def read(path: str | Path, split: str, part: str) -> ClipSet:
    """Read the clips of `part` ("train" or "test") of `split` (see SPLITS), sorted by file name.

    `path` is the folder Skeleton or the one that holds it. `notes` compare the number of clips with
    the published one where they differ. Raises BadInputError for an unknown split or part, a folder
    or subject that is not there, and whatever `read_clip` refuses.
    """
    check_selection(SOURCE, SPLITS, split, part)
    folder = clip_folder(Path(path), "Skeleton", "*.mat", _FOLDER)
    by_subject: dict[int, list[Path]] = {subject: [] for subject in SPLITS[split][part]}
    for file in sorted(folder.glob("*.mat")):
        _, subject = _numbers(file)
        if subject in by_subject:
            by_subject[subject].append(file)
    for subject, files in by_subject.items():
        if not files:
            without = [name for name, parts in SPLITS.items() if all(subject not in those for those in parts.values())]
            others = "".join(f", or use --split {name}" for name in without)
            raise BadInputError(
                f"{folder}: no clip of subject {subject}, which the {part} part of split {split} needs: "
                f"add the files a*_s{subject}_t*_skeleton.mat{others}"
            )
    chosen = sorted(file for files in by_subject.values() for file in files)
    clips = [read_clip(file) for file in track(chosen, len(chosen), "clips read")]
    expected = published(split, part)
    note = f"split {split}, {part}: {len(clips):,} clips, published {expected:,}"
    notes = () if len(clips) == expected else (note,)
    return ClipSet(SOURCE, split, part, GRAPH, CLASSES, clips, notes, validation=split in VALIDATION)


def read_clip(path: str | Path) -> Clip:
    """Read one clip, joints (1, T, 20, 3) float32 in metres, in the order of nw-ucla-20.

    Raises MissingExtraError without scipy, and BadInputError for a name that is not
    aA_sS_tT_skeleton, an action, subject or trial that the data set does not have, an unreadable,
    damaged or MATLAB 7.3 file, and one whose d_skel is missing, is not (20, 3, T) numbers, has no
    frames or a coordinate that is not finite; messages count joints in the file's order.
    """
    path = Path(path)
    action, subject = _numbers(path)
    found = _variable(path)
    if found.ndim == 2:  # MATLAB drops a last axis of 1
        found = found[:, :, None]
    size = len(JOINTS)
    if found.ndim != 3 or found.shape[:2] != (size, 3):
        raise BadInputError(
            f"{path}: {VARIABLE} has shape {found.shape}, expected ({size}, 3, frames): this reader takes the skeletons "
            f"of Kinect 1 only, {_FETCH} or remove it"
        )
    if found.shape[2] == 0:
        raise BadInputError(f"{path}: the clip has 0 frames, expected at least 1: remove the file")
    with np.errstate(over="ignore"):  # too large for float32: infinite, and refused below
        joints = found.transpose(2, 0, 1).astype(np.float32)[None]
    check_finite(str(path), joints)
    return Clip(path.stem, action - 1, joints[:, :, _ORDER], GRAPH, subject=subject)


def _numbers(path: Path) -> tuple[int, int]:
    """Parse action and subject from a file's name."""
    match = _NAME.fullmatch(path.stem)
    if match is None:
        form = "aA_sS_tT_skeleton.mat (action, subject, trial)"
        raise BadInputError(f"{path}: the name of a clip must have the form {form}: rename or remove the file")
    action, subject, trial = map(int, match.groups())
    for (what, last), number in zip(LAST.items(), (action, subject, trial), strict=True):
        if number > last:
            raise BadInputError(f"{path}: unknown {what} {number}, expected 1 to {last}: rename or remove the file")
    return action, subject


def _variable(path: Path) -> np.ndarray:
    """Read d_skel as it is in the file, of real numbers; the file's other variables stay unread."""
    require(f"{SOURCE}:PATH", "utd-mhad", "scipy.io")
    from scipy.io import loadmat

    content = read_bytes(path, CLIP_BYTES, _FETCH)
    if content.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise BadInputError(f"{path}: a MATLAB 7.3 file, expected MATLAB 5: save it in MATLAB with -v7, or {_FETCH}")
    if _inflates(content):
        raise BadInputError(f"{path}: inflates to more than {CLIP_BYTES:,} bytes, the limit of a clip: {_FETCH}")
    not_numbers = f"{path}: {VARIABLE} is not an array of real numbers: {_FETCH}"
    if not _holds_numbers(content):
        raise BadInputError(not_numbers)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of is refused below
            variables = loadmat(io.BytesIO(content), variable_names=[VARIABLE])
    except Exception as error:  # OSError, TypeError, zlib.error, … depending on where the damage is
        problem = str(error) or type(error).__name__
        raise BadInputError(f"{path}: not a MATLAB 5 file, or damaged ({problem}): {_FETCH}") from error
    if VARIABLE not in variables:
        raise BadInputError(f"{path}: no variable {VARIABLE}: the file is not a skeleton's or is cut short, {_FETCH}")
    found = variables[VARIABLE]
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise BadInputError(not_numbers)
    return found


def _inflates(content: bytes) -> bool:
    """Tell whether the compressed elements inflate to more than CLIP_BYTES; loadmat would inflate each as a whole."""
    at, left = _HEADER, CLIP_BYTES
    while at + 8 <= len(content) and left >= 0:
        kind, size = (int.from_bytes(content[at + i : at + i + 4], _order_of(content)) for i in (0, 4))
        if kind == _COMPRESSED:
            with suppress(zlib.error):  # loadmat says what is damaged
                left -= len(zlib.decompressobj().decompress(content[at + 8 : at + 8 + size], left + 1))
        at += 8 + size
    return left < 0


def _order_of(content: bytes) -> Literal["little", "big"]:
    return "little" if content[126:128] == b"IM" else "big"


def _holds_numbers(content: bytes) -> bool:
    """Check the type code of d_skel's data, which follows its name, in a file that is not compressed.

    loadmat uses the code as an index without a check, and a wrong one ends the process. Compressed
    data have a checksum.
    """
    found = _VARIABLE_NAME.search(content)
    if found is None:
        return True
    return (
        int.from_bytes(found[1], _order_of(content)) & 0xFFFF in _ELEMENT_TYPES
    )  # the upper half is the size of a small element
