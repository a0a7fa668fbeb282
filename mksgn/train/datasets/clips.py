"""Clips as every reader returns them, and the set of the clips of one part of a split."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mksgn.common.errors import BadInputError


@dataclass(frozen=True, eq=False)
class Clip:
    """One recorded action: the joints of every body that is present, in the sensor's coordinates.

    `joints` is (M, T, V, 3), float32, metres, M >= 1 bodies, T >= 1 frames, V joints in the order
    of the graph named `graph` in mksgn/train/skeletons. `label` is a class number, 0-based.
    `subject` and `view` are the benchmark's own numbers (0: unknown).
    """

    name: str
    label: int
    joints: np.ndarray
    graph: str
    subject: int = 0
    view: int = 0


class LazyClips(Sequence[Clip]):
    """Clips that are read from disk each time they are asked for; their labels, (clips,), are known
    beforehand.

    For data sets that do not fit in memory. `read` is given the number of a clip, in the order of
    `labels`.
    """

    def __init__(self, labels: np.ndarray, read: Callable[[int], Clip]):
        self.labels, self._read = np.asarray(labels, dtype=np.int64), read

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        return self._read(range(len(self))[index])

    def __iter__(self) -> Iterator[Clip]:
        return (self._read(index) for index in range(len(self)))

    def take(self, chosen: Iterable[int]) -> LazyClips:
        """Select clips without reading them."""
        chosen = list(chosen)
        return LazyClips(self.labels[chosen], lambda index: self._read(int(chosen[index])))


@dataclass(frozen=True, eq=False)
class ClipSet:
    """Clips of one part of one split of one source; `classes` gives the names in label order.

    `notes` are what a user should know about this selection (files skipped, clips short of the
    published count), a line each: the commands print them. `validation` says that the test part
    lies inside the benchmark's training split, or that there is no benchmark: it may be looked at
    while a model is still being chosen.
    """

    source: str
    split: str
    part: str  # "train" or "test"
    graph: str
    classes: tuple[str, ...]
    clips: Sequence[Clip] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    validation: bool = False

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def labels(self) -> np.ndarray:
        """Labels of the clips, (clips,) int64."""
        if isinstance(self.clips, LazyClips):
            return self.clips.labels
        return np.array([clip.label for clip in self.clips], dtype=np.int64)


def clip_folder(path: Path, name: str, pattern: str, what: str) -> Path:
    """Find the folder of a data set's files: `path`, or its subfolder `name`. Raises BadInputError if no file there
    matches `pattern`; the message ends with `what` the path must be."""
    path = Path(os.path.expanduser(path))  # Path.expanduser raises for an unknown user
    folder = path if path.name == name or not (path / name).is_dir() else path / name
    if not folder.is_dir() or next(folder.glob(pattern), None) is None:
        problem = "holds no clip" if folder.is_dir() else "is not a folder"
        raise BadInputError(f"{path} {problem}: {what}")
    return folder


def check_finite(clip: str, joints: np.ndarray) -> None:
    """Raise BadInputError for joints (bodies, frames, joints, 3) that are not finite; every reader calls it.

    A sensor that lost a joint often writes NaN. No value is substituted: it would be a movement that no one made.
    """
    bad = np.argwhere(~np.isfinite(joints))
    if len(bad):
        m, t, v, _ = bad[0]
        raise BadInputError(f"{clip}: body {m}, frame {t}, joint {v} is not finite; repair or leave out the clip")


def check_selection(source: str, splits: Iterable[str], split: str | None, part: str, limit: int | None = None) -> None:
    """Raise BadInputError, with the choices, for an unknown split or part, or a limit below 1."""
    if split is not None and split not in splits:
        raise BadInputError(f"{source} has no split {split!r}: use one of {', '.join(splits)}")
    if part not in ("train", "test"):
        raise BadInputError(f"{source} has no part {part!r}: use train or test")
    if limit is not None and limit < 1:
        raise BadInputError(f"limit {limit} leaves no clip: it must be at least 1")


def spread(clips: ClipSet, limit: int | None) -> ClipSet:
    """Select `limit` clips: the middle ones of as many equal stretches of the list sorted by class,
    then name.

    Readers sort by name. Each class keeps its share to within one clip; lazy clips stay unread.
    """
    if limit is None or limit >= len(clips):
        return clips
    chosen = spread_over(clips.labels, limit)
    some = clips.clips.take(chosen) if isinstance(clips.clips, LazyClips) else [clips.clips[index] for index in chosen]
    return replace(clips, clips=some)


def spread_over(labels: np.ndarray, limit: int) -> np.ndarray:
    """Compute the indices of `limit` clips, or of all if there are fewer, as `spread` selects
    them."""
    count = len(labels)
    by_class = np.argsort(labels, kind="stable")
    limit = min(limit, count)
    middles = (2 * np.arange(limit) + 1) * count // (2 * limit)
    return by_class[middles]
