"""Reader of NTU RGB+D 60 and 120 as its authors distribute them: one text file
SsssCcccPpppRrrrAaaa.skeleton per clip.

A file is a sequence of numbers, in lines that end in LF or CRLF; as the authors' own reader does,
only the order of the numbers is relied on:

    frames                                    how many follow
      bodies                                  in this frame, 0 or more
        id + 9 numbers                        of the body: clipped edges, hands, lean, tracking state
        25                                    joints
          x y z  dx dy  cx cy  qw qx qy qz  s   of a joint: metres, pixels, orientation, tracking state

Only ids and x, y, z are interpreted: where the sensor lost a joint, the other numbers need not be
finite. An id is not read as a number, since doubles do not tell neighbouring ids apart.

A sensor also sees bodies where there are none (tables, seats), and gives one person several ids.
The rules below are those of CTR-GCN's preparation (data/ntu/get_raw_skes_data.py,
get_raw_denoised_data.py, seq_transformation.py, which come from SGN), implemented again, so that
clips read here are those of the field's published results:

 1. Frames without a body are dropped. Frames are counted without them from here on.
 2. A body's frames follow each other from the first one that has its id: gaps are closed.
 3. The motion of a body is the sum over x, y, z of the variance over its frames and joints.
 4. If a clip has a single body, it is kept as it is. Of several, those of at most MAX_NOISE_FRAMES
    frames are dropped.
 5. While more than one is left, in order of appearance: a frame in which the body is wider than
    MAX_SPREAD of its height is noise. A body with at least MAX_NOISE_SHARE of such frames is
    dropped. The motion of any other is the smaller of its motion and that of its good frames alone,
    but all its frames stay.
 6. The rest are sorted by motion; the largest starts actor 1. Each further body joins actor 1 if
    their spans of frames overlap by no more than one frame, or else actor 2 on the same condition,
    or else is dropped. A span runs from the first frame to the last, gaps included, and actor 2's
    begins at frame 0. In a shared frame the later body, of smaller motion, stays.
 7. Frames without either actor are dropped.
 8. The middle of the spine (joint 2, index 1) of actor 1, in the first frame that has actor 1,
    becomes the origin. Where an actor is absent its joints stay 0.

The preparation also names limits of motion, 0.089925 and 2, but does not apply them, and neither
does this reader.

Differences: an actor 2 that never appears gets no entry (CTR-GCN stores zeros; for NTU RGB+D 120
it repeats actor 1 where one body is left). Nothing is padded to 300 frames. An actor is absent
where all its coordinates are 0, while CTR-GCN tests whether they sum to 0 and, for a clip of one
body, does not test. CTR-GCN stops with an error at a clip in which rule 4 leaves no body; here it is
skipped and named.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mksgn.common.errors import BadInputError
from mksgn.common.progress import track
from mksgn.common.words import counted, first_three
from mksgn.train.datasets import ntu
from mksgn.train.datasets.clips import Clip, ClipSet, check_selection, spread_over
from mksgn.train.skeletons import graph

SOURCE = "ntu"
JOINTS = graph(ntu.GRAPH).size
CENTRE = graph(ntu.GRAPH).centre
MAX_NOISE_FRAMES = 11
MAX_SPREAD = 0.8
MAX_NOISE_SHARE = 0.69754

_BODY_NUMBERS, _JOINT_NUMBERS = 10, 12
_FARTHEST = 1e6  # metres: far beyond any sensor, and squares and differences in float32 stay finite
_DIGITS = 9  # no count is longer; int() of thousands of digits would fail in its own way
_HOW = (
    "request the skeletons at the ROSE lab's site, unpack nturgbd_skeletons_s001_to_s017.zip (for 120 classes also "
    "nturgbd_skeletons_s018_to_s032.zip), and give the folder with the files *.skeleton or the one that holds it"
)


class _NoBodyError(BadInputError):
    """A well-formed file in which no body is left."""


@dataclass
class _Body:
    """Joints (n, 25, 3) of one id, in frames `start` to `end` without a gap."""

    start: int
    joints: np.ndarray
    motion: float

    @property
    def end(self) -> int:
        return self.start + len(self.joints) - 1


def read(path: str | Path, split: str, part: str, limit: int | None = None) -> ClipSet:
    """Read the clips of `part` ("train" or "test") of `split` (see ntu.SPLITS), sorted by name;
    joints as `read_clip` gives them.

    `path` is the folder of *.skeleton files, or one whose subfolders nturgb... hold them. With
    `limit`, only that many clips are read, selected as by `clips.spread`. Clips with missing
    skeletons (ntu.missing) are left out; so are malformed files and those without a body. `notes`
    count both, name the first few, and compare the number of clips with the published one. Raises
    BadInputError for an unknown split or part, a folder without clips or without clips of this
    part, and where no file can be used.
    """
    check_selection(SOURCE, ntu.SPLITS, split, part)
    folder = Path(os.path.expanduser(path))  # Path.expanduser raises for an unknown user
    files = _files(folder)
    named, foreign = _names(files)
    names, left_out = ntu.select(named, split, part)
    if not names:
        benchmark = ntu.SPLITS[split]
        numbers = ", ".join(map(str, getattr(benchmark, part)))
        raise BadInputError(
            f"{folder}: none of {len(files):,} files can be used for the {part} part of split {split} ({benchmark.by} "
            f"{numbers}): {_HOW}"
        )
    notes = [ntu.count_note(split, part, len(names))]
    if left_out:
        notes.append(ntu.missing_note(left_out))
    if foreign:
        notes.append(_note(foreign, "skipped for a name that is not a clip's"))
    if limit is not None and limit < len(names):
        names = [names[index] for index in spread_over(np.array([name.label for name in names]), limit)]
    clips: list[Clip] = []
    malformed: list[str] = []
    empty: list[str] = []
    faults: list[BadInputError] = []
    for name in track(names, len(names), "clips read"):
        try:
            clips.append(read_clip(files[str(name)]))
        except BadInputError as error:
            (empty if isinstance(error, _NoBodyError) else malformed).append(str(name))
            faults.append(error)
    if not clips:
        raise BadInputError(f"{folder}: none of {len(names):,} files can be used; the first is {faults[0]}")
    if malformed:
        notes.append(_note(malformed, "skipped as truncated or malformed"))
    if empty:
        notes.append(_note(empty, "skipped because no body is left"))
    validation = ntu.SPLITS[split].validation
    return ClipSet(SOURCE, split, part, ntu.GRAPH, ntu.classes(split), clips, tuple(notes), validation)


def read_clip(path: str | Path) -> Clip:
    """Read one clip, joints (M, T, 25, 3) float32 in metres from the origin of rule 8 above, M 1 or
    2.

    Raises BadInputError for a name that is not SsssCcccPpppRrrrAaaa, an unreadable file, numbers
    too few or too many, a body of other than 25 joints, an id twice in one frame, a coordinate that
    is not a finite number of at most 1,000,000 m, and where no body is left.
    """
    path = Path(path)
    try:
        name = ntu.ClipName.parse(path.stem)
    except BadInputError as error:
        raise BadInputError(f"{path}: {error}") from error
    frames, bodies = _parse(path)
    actors = _denoise(bodies) if len(bodies) > 1 else bodies
    if not actors:
        problem = f"each of {len(bodies)} bodies is seen in at most {MAX_NOISE_FRAMES} frames" if bodies else "no body"
        raise _NoBodyError(f"{path}: {problem}: remove the file")
    return Clip(path.stem, name.label, _centred(path, _merge(actors, frames)), ntu.GRAPH, name.subject, name.camera)


def _files(folder: Path) -> dict[str, Path]:
    """List clips by name, first those of the folder and then those of its subfolders nturgb...."""
    if not folder.is_dir():
        raise BadInputError(f"{folder} is not a folder: {_HOW}")
    files: dict[str, Path] = {}
    for place in (folder, *sorted(inner for inner in folder.glob("nturgb*") if inner.is_dir())):
        for file in place.glob("*.skeleton"):
            files.setdefault(file.stem, file)
    if not files:
        raise BadInputError(f"{folder} holds no clip: {_HOW}")
    return files


def _names(files: dict[str, Path]) -> tuple[list[ntu.ClipName], list[str]]:
    """Parse the clips' names; also return file names that are not clips'."""
    named, foreign = [], []
    for stem in files:
        try:
            named.append(ntu.ClipName.parse(stem))
        except BadInputError:
            foreign.append(stem)
    return named, sorted(foreign)


def _note(names: list[str], what: str) -> str:
    return f"{counted(len(names), 'file')} {what}: {first_three(names)}"


class _Numbers:
    """The numbers of a file and how far they have been read."""

    def __init__(self, path: Path):
        self.path, self.place = path, 0
        try:
            self.numbers = path.read_bytes().split()
        except OSError as error:
            problem = f"cannot be read ({error.strerror}): check the path and its permissions"
            raise BadInputError(f"{path}: {problem}") from error

    def fault(self, problem: str) -> BadInputError:
        return BadInputError(f"{self.path}: {problem}: unpack the file again or remove it")

    def count(self, what: str) -> int:
        """Read a whole number."""
        if self.place >= len(self.numbers):
            raise self.fault(f"ends before {what}")
        number = self.numbers[self.place]
        if not number.isdigit() or len(number) > _DIGITS:
            raise self.fault(f"{_shown(number)} is not {what}, expected a whole number")
        self.place += 1
        return int(number)

    def body(self, b: int, f: int, total: int) -> tuple[bytes, list[bytes]]:
        """Read a body: its id, and its coordinates as text, x of 25 joints, y of 25, z of 25."""
        start = self.place
        self.place += _BODY_NUMBERS
        joints = self.count(f"the number of joints of body {b} in frame {f} of {total} (from 0)")
        first, self.place = self.place, self.place + JOINTS * _JOINT_NUMBERS
        where = f"body {b} in frame {f} (both from 0)"
        if joints != JOINTS:
            raise self.fault(f"{where} has {joints} joints, expected {JOINTS}")
        if self.place > len(self.numbers):
            raise self.fault(f"ends within {where}")
        axes = (self.numbers[first + axis : self.place : _JOINT_NUMBERS] for axis in range(3))
        return self.numbers[start], [text for axis in axes for text in axis]


def _parse(path: Path) -> tuple[int, list[_Body]]:
    """Read the number of frames that have a body, and the bodies in order of appearance (rules 1 to
    3)."""
    numbers = _Numbers(path)
    total, frames = numbers.count("the number of frames"), 0
    if total == 0:
        raise BadInputError(f"{path}: the clip has 0 frames, expected at least 1: remove the file")
    starts: dict[bytes, int] = {}
    members: dict[bytes, list[int]] = {}  # by id, the body's indices in `texts`
    texts: list[list[bytes]] = []
    for f in range(total):
        present = numbers.count(f"the number of bodies in frame {f} of {total} (from 0)")
        seen: set[bytes] = set()
        for b in range(present):
            body, coordinates = numbers.body(b, f, total)
            if body in seen:
                raise BadInputError(
                    f"{path}: body {b} in frame {f} (both from 0) has the id of another body in the frame: remove the "
                    "file"
                )
            seen.add(body)
            starts.setdefault(body, frames)
            members.setdefault(body, []).append(len(texts))
            texts.append(coordinates)
        frames += present > 0
    if numbers.place != len(numbers.numbers):
        raise numbers.fault(f"{len(numbers.numbers) - numbers.place} numbers follow its last frame, expected 0")
    flat = [text for coordinates in texts for text in coordinates]
    joints = _coordinates(path, flat).reshape(len(texts), 3, JOINTS).transpose(0, 2, 1)
    own = {body: np.ascontiguousarray(joints[indices]) for body, indices in members.items()}
    return frames, [_Body(starts[body], values, _motion(values)) for body, values in own.items()]


def _coordinates(path: Path, texts: list[bytes]) -> np.ndarray:
    """Convert to float32; raises BadInputError for a value that is not finite or above
    _FARTHEST."""
    with np.errstate(over="ignore"):  # too large for float32: infinite, and refused below
        try:
            values = np.fromiter(map(float, texts), dtype=np.float32, count=len(texts))
        except ValueError:
            values = np.array([_number(text) for text in texts], dtype=np.float32)
    bad = np.flatnonzero(~(np.abs(values) <= _FARTHEST))  # NaN too
    if len(bad):
        raise BadInputError(
            f"{path}: coordinate {_shown(texts[bad[0]])} is not a finite number of metres, expected at most "
            f"{_FARTHEST:,.0f}: unpack the file again or remove it"
        )
    return values


def _number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _shown(text: bytes) -> str:
    return repr(text[:20].decode("ascii", "replace"))


def _motion(joints: np.ndarray) -> float:
    return float(np.var(joints.reshape(-1, 3), axis=0).sum())


def _denoise(bodies: list[_Body]) -> list[_Body]:
    """Remove bodies that are noise, and sort the rest by motion, largest first (rules 4 to 6)."""
    kept = [body for body in bodies if len(body.joints) > MAX_NOISE_FRAMES]
    for body in tuple(kept):
        if len(kept) == 1:
            break
        width, height, _ = np.ptp(body.joints, axis=1).astype(np.float64).T
        noise = width > MAX_SPREAD * height
        if noise.mean() >= MAX_NOISE_SHARE:
            kept = [other for other in kept if other is not body]
        elif noise.any():
            body.motion = min(body.motion, _motion(body.joints[~noise]))
    return sorted(kept, key=lambda body: -body.motion)


def _merge(bodies: list[_Body], frames: int) -> np.ndarray:
    """Merge bodies, sorted by motion, into two actors (2, frames, 25, 3); 0 where an actor is
    absent (rule 6)."""
    actors = np.zeros((2, frames, JOINTS, 3), dtype=np.float32)
    spans = [(bodies[0].start, bodies[0].end), (0, 0)]
    actors[0, bodies[0].start : bodies[0].end + 1] = bodies[0].joints
    for body in bodies[1:]:
        for actor, (start, end) in enumerate(spans):
            if min(end, body.end) <= max(start, body.start):
                actors[actor, body.start : body.end + 1] = body.joints
                spans[actor] = (min(start, body.start), max(end, body.end))
                break
    return actors


def _centred(path: Path, actors: np.ndarray) -> np.ndarray:
    """Move the origin, and drop frames and actors without a body: (M, T, 25, 3) (rules 7 and 8)."""
    present = (actors != 0).any(axis=(2, 3))
    if not present[0].any():
        raise _NoBodyError(f"{path}: every coordinate of its first actor is 0: remove the file")
    actors, present = actors[:, present.any(axis=0)], present[:, present.any(axis=0)]
    origin = actors[0, present[0].argmax(), CENTRE].copy()
    actors[present] -= origin
    return np.ascontiguousarray(actors if present[1].any() else actors[:1])
